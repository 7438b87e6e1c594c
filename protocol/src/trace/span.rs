//! One span, and how a batch of them is said in OpenTelemetry's protocol.

use prost::Message;

use super::context::{SpanId, TraceContext};
use crate::otlp::{Resource, Value, attributes, wire};

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

impl Resource {
    /// The body of an export of these spans.
    pub fn export_spans(&self, spans: &[Span]) -> Vec<u8> {
        let spans = spans.iter().map(span).collect();
        let scope_spans = wire::ScopeSpans { scope: Some(self.scope()), spans };
        let resource_spans =
            wire::ResourceSpans { resource: Some(self.to_wire()), scope_spans: vec![scope_spans] };
        wire::ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
    }
}

fn span(span: &Span) -> wire::Span {
    use wire::span::SpanKind;
    use wire::status::StatusCode;
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    let status =
        |word: &str| wire::Status { message: word.to_owned(), code: StatusCode::Error.into() };
    let context = &span.context;
    wire::Span {
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
        let body = Resource { attributes, version: "1" }.export_spans(&[span]);
        insta::assert_snapshot!(hex::encode(body));
    }
}
