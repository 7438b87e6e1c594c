//! Traces: where the time of one request went, over all programs that had a hand in it.
//!
//! Whoever asks may say which trace a request belongs to ([`TraceContext`], as W3C Trace Context has
//! it); agents say it to the cloud. Whether a trace is recorded is decided once, where it begins
//! ([`Sampling`]), and holds for everybody further on. What is recorded are [`Span`]s, for a collector that
//! speaks OpenTelemetry's protocol ([`crate::otlp`]). None of them holds anything of a request's inputs or
//! of an answer's outputs.

mod context;
mod sampling;
mod span;

pub use context::{STATE_MAX_BYTES, SpanId, TraceContext, TraceId};
pub use sampling::Sampling;
pub use span::{Kind, Span};

/// How a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The Open Inference Protocol over HTTP.
    Http,
    /// The same over gRPC.
    Grpc,
    /// The same, as one message of a stream.
    GrpcStream,
    /// As an agent's deferral.
    Agent,
}

/// How a request came in, and the trace that it is said to belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The way it came.
    pub via: Via,
    /// The caller's place in the trace.
    pub parent: Option<TraceContext>,
}
