//! One request's part of a trace, while it is answered.

use crate::otlp::Queue;
use protocol::otlp::Value;
use protocol::trace::{Kind, Span, SpanId, TraceContext, Via};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Decision, Traces, new_span};

/// A request's span. It ends when this is dropped.
#[derive(Debug, Default)]
pub struct Trace {
    /// What those who are asked on its behalf are told, where nothing is recorded.
    passed_on: Option<TraceContext>,
    pub(super) recording: Option<Box<Recording>>,
}

#[derive(Debug)]
pub(super) struct Recording {
    queue: Arc<Queue<Span>>,
    /// One moment by two clocks: all spans of a request are laid out from it.
    began: Instant,
    began_ns: u64,
    pub(super) via: Via,
    pub(super) span: Span,
    /// Whether it is known how the request ended.
    pub(super) ended: bool,
}

/// Something that is done for a request. It is noted when this is dropped.
#[derive(Debug)]
pub struct Part<'t> {
    passed_on: Option<&'t TraceContext>,
    recorded: Option<Recorded<'t>>,
}

#[derive(Debug)]
struct Recorded<'t> {
    of: &'t Recording,
    span: Span,
    /// It lasts until it is dropped.
    goes_on: bool,
}

impl Traces {
    /// Begins a request's span, if it is recorded.
    pub(super) fn begin(
        &self,
        parent: Option<TraceContext>,
        via: Via,
        name: &'static str,
        unix_ns: impl FnOnce() -> u64,
    ) -> Trace {
        let (recorder, context, parent) = match self.decide(parent) {
            Decision::PassOn(passed_on) => return Trace { passed_on, recording: None },
            Decision::Record(recorder, context, parent) => (recorder, context, parent),
        };
        let began_ns = unix_ns();
        let span = Span {
            parent: parent.as_ref().map(TraceContext::span),
            parent_is_remote: parent.is_some(),
            name,
            kind: Kind::Server,
            ..span(context, began_ns)
        };
        let queue = recorder.queue.clone();
        let began = Instant::now();
        let recording = Recording { queue, began, began_ns, via, span, ended: false };
        Trace { passed_on: None, recording: Some(Box::new(recording)) }
    }
}

fn span(context: TraceContext, start_ns: u64) -> Span {
    Span {
        context,
        parent: None,
        parent_is_remote: false,
        name: "",
        kind: Kind::Internal,
        start_ns,
        end_ns: start_ns,
        attributes: Vec::new(),
        error: None,
    }
}

impl Recording {
    fn ns(&self, at: Instant) -> u64 {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.began) {
            Some(after) => self.began_ns.saturating_add(ns(after)),
            None => self.began_ns.saturating_sub(ns(self.began - at)),
        }
    }

    fn part(&self, name: &'static str, kind: Kind, from: Instant) -> Span {
        let context = self.span.context.at(new_span(), true);
        let parent: Option<SpanId> = Some(self.span.context.span());
        Span { parent, name, kind, ..span(context, self.ns(from)) }
    }
}

impl Trace {
    /// Whether anything is recorded.
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Adds to what is known of the request.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.span.attributes.push((key, value.into()));
        }
    }

    /// Something that was done for the request, from then on, for so long.
    pub fn part(&self, name: &'static str, from: Instant, took: Duration) -> Part<'_> {
        let recorded = self.recording.as_deref().map(|of| {
            let end_ns = of.ns(from + took);
            let span = Span { end_ns, ..of.part(name, Kind::Internal, from) };
            Recorded { of, span, goes_on: false }
        });
        Part { passed_on: None, recorded }
    }

    /// Somebody is asked on behalf of the request, from now on until this is dropped.
    pub fn call(&self, name: &'static str) -> Part<'_> {
        let recorded = self.recording.as_deref().map(|of| {
            let span = of.part(name, Kind::Client, Instant::now());
            Recorded { of, span, goes_on: true }
        });
        Part { passed_on: self.passed_on.as_ref(), recorded }
    }
}

impl Part<'_> {
    /// What whoever is asked is told of the trace.
    pub fn context(&self) -> Option<&TraceContext> {
        let recorded = self.recorded.as_ref().map(|recorded| &recorded.span.context);
        recorded.or(self.passed_on)
    }

    /// Adds to what is known of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.span.attributes.push((key, value.into()));
        }
    }

    /// The same, in a row.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// It failed; a word for how.
    pub fn failed(&mut self, error: &'static str) {
        self.set("error.type", error);
        if let Some(recorded) = &mut self.recorded {
            recorded.span.error = Some(error);
        }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Some(Recorded { of, mut span, goes_on }) = self.recorded.take() {
            if goes_on {
                span.end_ns = of.ns(Instant::now());
            }
            of.queue.put(span);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let end_ns = recording.ns(Instant::now());
            let Recording { queue, mut span, ended, .. } = *recording;
            span.end_ns = end_ns;
            if !ended {
                span.attributes.push(("error.type", "cancelled".into())); // its asker went away
            }
            queue.put(span);
        }
    }
}
