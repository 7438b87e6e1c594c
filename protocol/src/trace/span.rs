//! One span, and how a batch of them is said in OpenTelemetry's protocol.

use prost::Message;
use std::borrow::Cow;

use super::context::{SpanId, TraceContext};

#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
mod otlp {
    include!(concat!(env!("OUT_DIR"), "/otlp.rs"));
}

/// On which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On neither.
    Internal,
    /// It is asked.
    Server,
    /// It asks.
    Client,
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
}

/// A part of what became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its own place.
    pub context: TraceContext,
    /// The span that it is a part of; none for the first of a trace.
    pub parent: Option<SpanId>,
    /// Whether that is in another process.
    pub parent_is_remote: bool,
    /// What kind of part it is.
    pub name: &'static str,
    /// On which side of a call.
    pub kind: Kind,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    /// Nanoseconds since 1970.
    pub end_ns: u64,
    /// Names and values.
    pub attributes: Vec<(&'static str, Value)>,
    /// A word for what went wrong, if something did.
    pub error: Option<&'static str>,
}

/// Which program recorded.
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
    /// Spans that it would not take.
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
    /// The body of an export of these spans.
    pub fn export(&self, spans: &[Span]) -> Vec<u8> {
        let scope = otlp::InstrumentationScope {
            name: "outrigger".to_owned(),
            version: self.version.to_owned(),
        };
        let spans = spans.iter().map(span).collect();
        let resource_spans = otlp::ResourceSpans {
            resource: Some(otlp::Resource { attributes: attributes(&self.attributes) }),
            scope_spans: vec![otlp::ScopeSpans { scope: Some(scope), spans }],
        };
        otlp::ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    }
}

impl Exported {
    /// Reads a collector's answer. What cannot be read says nothing, and the spans count as taken.
    pub fn read(body: &[u8]) -> Self {
        let answer = otlp::ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        Self { rejected, why: partial.error_message }
    }
}

fn span(span: &Span) -> otlp::Span {
    use otlp::span::SpanKind;
    use otlp::status::StatusCode;
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    let status =
        |word: &str| otlp::Status { message: word.to_owned(), code: StatusCode::Error.into() };
    let context = &span.context;
    otlp::Span {
        trace_id: context.trace().bytes().to_vec().into(),
        span_id: context.span().bytes().to_vec().into(),
        trace_state: context.state().unwrap_or_default().to_owned(),
        parent_span_id: span.parent.map(|p| p.bytes().to_vec()).unwrap_or_default().into(),
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: attributes(&span.attributes),
        status: span.error.map(status),
        flags: flags(span),
    }
}

fn flags(span: &Span) -> u32 {
    const KNOWN: u32 = 1 << 8;
    const REMOTE: u32 = 1 << 9;
    let remote = if span.parent_is_remote { REMOTE } else { 0 };
    u32::from(span.context.flags()) | KNOWN | remote
}

fn attributes(attributes: &[(&'static str, Value)]) -> Vec<otlp::KeyValue> {
    let said = |(key, value): &(&'static str, Value)| {
        use otlp::any_value::Value as Said;
        let value = match value {
            Value::Text(text) => Said::StringValue(text.clone().into_owned()),
            Value::Whole(number) => Said::IntValue(*number),
            Value::Real(number) => Said::DoubleValue(*number),
        };
        let value = Some(otlp::AnyValue { value: Some(value) });
        otlp::KeyValue { key: (*key).to_owned(), value }
    };
    attributes.iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::super::context::TraceId;
    use super::*;

    #[test]
    fn golden_export() {
        let (trace, id) = (TraceId::from_entropy([0xa1; 16]), SpanId::from_entropy([0xb2; 8]));
        let span = Span {
            context: TraceContext::begin(trace, id, true),
            parent: Some(SpanId::from_entropy([0xc3; 8])),
            parent_is_remote: true,
            name: "infer",
            kind: Kind::Server,
            start_ns: 1,
            end_ns: 2,
            attributes: vec![("text", "x".into()), ("whole", 7_u32.into()), ("real", 0.5.into())],
            error: Some("overloaded"),
        };
        let attributes = vec![("service.name", "outrigger-agent".into())];
        let body = Resource { attributes, version: "1" }.export(&[span]);
        insta::assert_snapshot!(hex::encode(body));
    }

    #[test]
    fn an_answer_says_what_was_rejected() {
        assert_eq!(Exported::read(&[]), Exported::default());
        assert_eq!(Exported::read(b"\xff\xff"), Exported::default());
        let partial =
            otlp::ExportTracePartialSuccess { rejected_spans: 3, error_message: "full".to_owned() };
        let answer = otlp::ExportTraceServiceResponse { partial_success: Some(partial) };
        let read = Exported::read(&answer.encode_to_vec());
        assert_eq!(read, Exported { rejected: 3, why: "full".to_owned() });
    }
}
