//! Traces of requests, on their way to a collector that speaks OTLP over HTTP.
//!
//! [`Traces::serve`] begins the span of a request that came in ([`Trace`]); what it went through is
//! noted as [`Part`]s of it, and what others are asked on its behalf too, whose context then travels
//! with the question. What is recorded, and what waits how long, is decided in `protocol::trace`; here
//! are its clock, its entropy, its thread and its connection. A request hands its spans over and goes
//! on: where there is no room they are thrown away, which is counted.
//!
//! Off, which is the default, a request costs a look for two headers. What a caller says of its trace
//! is passed on all the same, so that a trace is joined across a program that records nothing.

mod collector;
mod queue;
mod request;
mod settings;
mod trace;

pub use collector::CollectorError;
pub use settings::{Objection, TraceSettings};
pub use trace::{Part, Trace};

use crate::metrics::{Exposition, Kind};
use collector::Collector;
use protocol::trace::{Resource, Sampling, SpanId, TraceContext, TraceId, Value};
use queue::Queue;
use std::sync::Arc;
use std::time::Duration;

/// Whatever records traces. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    sampling: Sampling,
    queue: Arc<Queue>,
}

/// Which program records.
#[derive(Debug, Clone)]
pub struct Service {
    /// What it is.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which one of them it is; nothing where there is but one.
    pub instance: Option<String>,
}

/// Spans by what became of them, and failed attempts to hand them over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector took them.
    pub sent: u64,
    /// There was no room for them.
    pub no_room: u64,
    /// The collector was away for too long, or until the end.
    pub undelivered: u64,
    /// The collector would not take them.
    pub rejected: u64,
    /// Failed attempts.
    pub failures: u64,
}

impl Traces {
    /// Starts a thread that hands spans over, if there is a collector.
    ///
    /// # Errors
    /// [`CollectorError`]: a file that the settings name cannot be used, or there is no thread.
    pub fn start(settings: &TraceSettings, service: Service) -> Result<Self, CollectorError> {
        if settings.endpoint.is_empty() {
            return Ok(Self(None));
        }
        let collector = Collector::new(settings, &service)?;
        let queue = Arc::new(Queue::default());
        let (taken, resource) = (queue.clone(), resource(service));
        let work = move || taken.deliver(&collector, &resource);
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(work);
        thread.map_err(CollectorError::Thread)?;
        let sampling = Sampling::share(settings.sample);
        Ok(Self(Some(Arc::new(Recorder { sampling, queue }))))
    }

    /// Hands over what waits, and waits for that, at most so long. Blocks.
    pub fn finish(&self, patience: Duration) {
        if let Some(recorder) = &self.0 {
            recorder.queue.finish(patience);
        }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> Counts {
        self.0.as_ref().map(|recorder| recorder.queue.counts()).unwrap_or_default()
    }

    /// The same for Prometheus; `prefix` is what the program's families begin with.
    pub fn render(&self, out: &mut Exposition, prefix: &str) {
        let Counts { sent, no_room, undelivered, rejected, failures } = self.counts();
        let help = "Spans of traces, by what became of them.";
        let mut family = out.family(&format!("{prefix}_trace_spans_total"), help, Kind::Counter);
        let results = [
            ("sent", sent),
            ("no_room", no_room),
            ("undelivered", undelivered),
            ("rejected", rejected),
        ];
        for (result, count) in results {
            family.sample(&[("result", result)], count);
        }
        let help = "Failed attempts to hand spans to the collector.";
        let name = format!("{prefix}_trace_export_failures_total");
        out.family(&name, help, Kind::Counter).sample(&[], failures);
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

fn resource(service: Service) -> Resource {
    let Service { name, version, instance } = service;
    let mut attributes: Vec<(_, Value)> = vec![
        ("service.name", name.into()),
        ("service.version", version.into()),
        ("telemetry.sdk.language", "rust".into()),
        ("telemetry.sdk.name", "outrigger".into()),
        ("telemetry.sdk.version", version.into()),
    ];
    attributes.extend(instance.map(|instance| ("service.instance.id", instance.into())));
    attributes.extend(crate::system::host_name().map(|host| ("host.name", host.into())));
    Resource { attributes, version }
}

#[cfg(test)]
mod tests;
