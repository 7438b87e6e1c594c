//! What a program tells a collector that speaks OpenTelemetry's protocol (OTLP): where the time of
//! requests went ([`crate::trace`]), what it counts ([`Metric`]), and what it logs ([`Log`]).
//!
//! All three are said with the same words of who speaks ([`Resource`]), and wait in the same kind of
//! [`Outbox`], of which the rest is thrown away. How bytes get there is `link`'s business.

mod log;
mod metric;
mod outbox;

pub use log::{FIELD_MAX_BYTES, FIELDS_MAX, Log, Severity, TEXT_MAX_BYTES};
pub use metric::{Buckets, Data, Metric, Moment, Point};
pub use outbox::{Outbox, OutboxPolicy};

use prost::Message;
use std::borrow::Cow;

#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
pub(crate) mod wire {
    include!(concat!(env!("OUT_DIR"), "/otlp.rs"));
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Figures.
    Metrics,
    /// Lines of the log.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Its name, which is also the last part of its URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// The path of its gRPC method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Whole(i64),
    /// A number.
    Real(f64),
    /// Yes or no.
    Truth(bool),
}

/// Which program speaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Names and values.
    pub attributes: Vec<(&'static str, Value)>,
    /// The program's version.
    pub version: &'static str,
}

/// What a collector says of a batch that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Spans, data points or records that it would not take.
    pub rejected: u64,
    /// Why.
    pub why: String,
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::Real(number.into())
    }
}

impl Resource {
    pub(crate) fn to_wire(&self) -> wire::Resource {
        wire::Resource { attributes: attributes(&self.attributes) }
    }

    pub(crate) fn scope(&self) -> wire::InstrumentationScope {
        let (name, version) = ("outrigger".to_owned(), self.version.to_owned());
        wire::InstrumentationScope { name, version }
    }
}

impl Exported {
    /// Reads a collector's answer. What cannot be read says nothing, and all counts as taken.
    pub fn read(body: &[u8]) -> Self {
        let answer = wire::ExportServiceResponse::decode(body).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected).unwrap_or(0);
        Self { rejected, why: partial.error_message }
    }
}

pub(crate) fn attributes<K: AsRef<str>>(attributes: &[(K, Value)]) -> Vec<wire::KeyValue> {
    let said = |(key, value): &(K, Value)| wire::KeyValue {
        key: key.as_ref().to_owned(),
        value: Some(any(value)),
    };
    attributes.iter().map(said).collect()
}

fn any(value: &Value) -> wire::AnyValue {
    use wire::any_value::Value as Said;
    let said = match value {
        Value::Text(text) => Said::StringValue(text.clone().into_owned()),
        Value::Whole(number) => Said::IntValue(*number),
        Value::Real(number) => Said::DoubleValue(*number),
        Value::Truth(truth) => Said::BoolValue(*truth),
    };
    wire::AnyValue { value: Some(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_was_rejected() {
        assert_eq!(Exported::read(&[]), Exported::default());
        assert_eq!(Exported::read(b"\xff\xff"), Exported::default());
        let partial = wire::ExportPartialSuccess { rejected: 3, error_message: "full".to_owned() };
        let answer = wire::ExportServiceResponse { partial_success: Some(partial) };
        let read = Exported::read(&answer.encode_to_vec());
        assert_eq!(read, Exported { rejected: 3, why: "full".to_owned() });
    }
}
