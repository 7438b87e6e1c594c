//! Traces of requests, on their way to a collector ([`crate::otlp`]).
//!
//! [`Traces::serve`] begins the span of a request that came in ([`Trace`]); what it went through is
//! noted as [`Part`]s of it, and what others are asked on its behalf too, whose context then travels
//! with the question. What is recorded is decided in `protocol::trace`; here are its clock and its entropy.
//!
//! Off, which is the default, a request costs a look for two headers. What a caller says of its trace
//! is passed on all the same, so that a trace is joined across a program that records nothing.

mod request;
mod trace;

pub use trace::{Part, Trace};

use crate::otlp::Queue;
use protocol::trace::{Sampling, Span, SpanId, TraceContext, TraceId};
use std::sync::Arc;

/// Whatever records traces. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    sampling: Sampling,
    queue: Arc<Queue<Span>>,
}

impl Traces {
    /// Recorded spans go into this queue.
    pub(crate) fn new(sampling: Sampling, queue: Arc<Queue<Span>>) -> Self {
        Self(Some(Arc::new(Recorder { sampling, queue })))
    }

    /// Decides about a request: whether its span is recorded, under which context, and as a part of
    /// what.
    fn decide(&self, parent: Option<TraceContext>) -> Decision<'_> {
        let Some(recorder) = &self.0 else { return Decision::PassOn(parent) };
        let id = TraceId::from_entropy(crate::entropy());
        let taken = recorder.sampling.takes(parent.as_ref(), id);
        match parent {
            parent @ Some(_) if !taken => Decision::PassOn(parent),
            Some(parent) => Decision::Record(recorder, parent.at(new_span(), true), Some(parent)),
            None if taken => {
                Decision::Record(recorder, TraceContext::begin(id, new_span(), true), None)
            }
            // Said, so that nobody further on begins a trace of its own.
            None => Decision::PassOn(Some(TraceContext::begin(id, new_span(), false))),
        }
    }
}

/// What is done with a request.
enum Decision<'t> {
    /// Nothing, but to tell those who are asked on its behalf.
    PassOn(Option<TraceContext>),
    /// Its span has this context, and is a part of the other.
    Record(&'t Recorder, TraceContext, Option<TraceContext>),
}

fn new_span() -> SpanId {
    SpanId::from_entropy(crate::entropy())
}
