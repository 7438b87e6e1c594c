//! A line of the log, and how a batch of them is said. Lines are cut, so that what waits takes a bounded
//! room: [`TEXT_MAX_BYTES`] of text, [`FIELDS_MAX`] fields of [`FIELD_MAX_BYTES`].

use crate::question::cut;
use prost::Message;

use super::{Resource, Value, any, attributes, wire};

/// Longer texts of a line are cut.
pub const TEXT_MAX_BYTES: usize = 1024;
/// Further fields of a line are left out.
pub const FIELDS_MAX: usize = 12;
/// Longer values of a line's fields are cut.
pub const FIELD_MAX_BYTES: usize = 256;

/// How grave it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// What should not be.
    Warn,
    /// What failed.
    Error,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// How grave it is.
    pub severity: Severity,
    text: String,
    fields: Vec<(String, Value)>,
}

impl Log {
    /// A line that says nothing yet.
    pub fn new(at_ns: u64, severity: Severity) -> Self {
        Self { at_ns, severity, text: String::new(), fields: Vec::new() }
    }

    /// What it says.
    pub fn set_text(&mut self, text: &str) {
        cut(text, TEXT_MAX_BYTES).clone_into(&mut self.text);
    }

    /// Adds a field; its name is told as one of this program's own.
    pub fn set(&mut self, name: &str, value: Value) {
        if self.fields.len() >= FIELDS_MAX {
            return;
        }
        let value = match value {
            Value::Text(text) => Value::Text(cut(&text, FIELD_MAX_BYTES).to_owned().into()),
            other => other,
        };
        self.fields.push((format!("outrigger.{name}"), value));
    }
}

impl Severity {
    fn to_wire(self) -> (wire::SeverityNumber, &'static str) {
        use wire::SeverityNumber as Number;
        match self {
            Self::Trace => (Number::Trace, "TRACE"),
            Self::Debug => (Number::Debug, "DEBUG"),
            Self::Info => (Number::Info, "INFO"),
            Self::Warn => (Number::Warn, "WARN"),
            Self::Error => (Number::Error, "ERROR"),
        }
    }
}

impl Resource {
    /// The body of an export of these lines.
    pub fn export_logs(&self, logs: &[Log]) -> Vec<u8> {
        let log_records = logs.iter().map(record).collect();
        let scope_logs = vec![wire::ScopeLogs { scope: Some(self.scope()), log_records }];
        let resource_logs = wire::ResourceLogs { resource: Some(self.to_wire()), scope_logs };
        wire::ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
    }
}

fn record(log: &Log) -> wire::LogRecord {
    let (number, text) = log.severity.to_wire();
    wire::LogRecord {
        time_unix_nano: log.at_ns,
        observed_time_unix_nano: log.at_ns,
        severity_number: number.into(),
        severity_text: text.to_owned(),
        body: Some(any(&Value::Text(log.text.clone().into()))),
        attributes: attributes(&log.fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_export() {
        let mut log = Log::new(7, Severity::Warn);
        log.set_text("the cloud is away");
        log.set("device", "d-1".into());
        log.set("tries", Value::Whole(2));
        log.set("known", Value::Truth(true));
        let attributes = vec![("service.name", "outrigger-agent".into())];
        let body = Resource { attributes, version: "1" }.export_logs(&[log]);
        insta::assert_snapshot!(hex::encode(body));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!((cut("h\u{e4}h", 2), cut("h\u{e4}h", 3), cut("h", 9)), ("h", "h\u{e4}", "h"));
        let mut log = Log::new(7, Severity::Info);
        log.set_text(&"x".repeat(TEXT_MAX_BYTES + 9));
        for field in 0..FIELDS_MAX + 3 {
            log.set(&field.to_string(), "y".repeat(FIELD_MAX_BYTES + 9).into());
        }
        let bytes = Resource { attributes: Vec::new(), version: "1" }.export_logs(&[log]).len();
        assert!(bytes < TEXT_MAX_BYTES + FIELDS_MAX * (FIELD_MAX_BYTES + 32) + 64, "{bytes}");
    }
}
