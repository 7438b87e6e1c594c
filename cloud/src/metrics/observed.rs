//! What became of requests and how long their parts took, by model.

use link::counter::Counter;
use link::metrics::{Exposition, Family, Histogram, Kind};
use protocol::id::ModelName;
use protocol::problem::ProblemCode;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::requests::{Ended, Outcome};

/// Codes have numbers below this.
const CODES: usize = 12;

/// The requests of one model. Only models that are known here have one, so their number is bounded by
/// what was pushed.
#[derive(Debug, Default)]
struct OfModel {
    answered: Counter,
    cancelled: Counter,
    failed: [Counter; CODES],
    /// In the order of [`PARTS`].
    parts: [Histogram; 4],
}

const PARTS: [(&str, &str); 4] = [
    ("outrigger_cloud_request_seconds", "From a request's header to its answer."),
    (
        "outrigger_cloud_network_seconds",
        "From a request's header to the last byte of its tensors: its way through the network.",
    ),
    ("outrigger_cloud_queue_seconds", "Time of answered requests in the queue of their model."),
    (
        "outrigger_cloud_compute_seconds",
        "Pre-processing, run and post-processing of answered requests, or of the batch they were in.",
    ),
];

impl OfModel {
    fn record(&self, ended: &Ended) {
        if let Some(receive) = ended.receive {
            self.parts[1].record(micros(receive));
        }
        match ended.outcome {
            Outcome::Answered => {
                self.answered.add(1);
                self.parts[0].record(micros(ended.took));
                self.parts[2].record(ended.queue_us);
                self.parts[3].record(ended.infer_us);
            }
            Outcome::Cancelled => self.cancelled.add(1),
            Outcome::Failed(code) => {
                let at = usize::try_from(code.number()).unwrap_or(CODES).min(CODES - 1);
                self.failed[at].add(1);
            }
        }
    }

    fn results(&self, family: &mut Family<'_>, model: &str) {
        let mut sample = |result: &str, count: &Counter| {
            family.sample(&[("model", model), ("result", result)], count.get());
        };
        sample(Outcome::Answered.as_str(), &self.answered);
        sample(Outcome::Cancelled.as_str(), &self.cancelled);
        for (number, count) in (0..).zip(&self.failed).filter(|(_, count)| count.get() > 0) {
            sample(ProblemCode::from_number(number).as_str(), count);
        }
    }
}

/// How a refused request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A client's, HTTP or gRPC.
    Https,
    /// A device's.
    Quic,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Https, Self::Quic];

    fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }
}

/// All requests since the start.
#[derive(Debug, Default)]
pub struct Observed {
    models: RwLock<BTreeMap<ModelName, Arc<OfModel>>>,
    /// Requests for models that are not known here.
    unknown: OfModel,
    /// Those that nobody waited for.
    background: OfModel,
    /// In the order of [`Transport::ALL`].
    refusals: [Histogram; 2],
}

impl Observed {
    /// A request ended.
    pub fn record(&self, ended: &Ended) {
        match &ended.model {
            _ if ended.background => self.background.record(ended),
            Some(model) => self.of(model).record(ended),
            None => self.unknown.record(ended),
        }
    }

    /// A request was refused on its header; its refusal went out so long after that was there.
    pub fn refused(&self, transport: Transport, took: Duration) {
        self.refusals[transport as usize].record(micros(took));
    }

    fn of(&self, model: &ModelName) -> Arc<OfModel> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = models.get(model) {
            return found.clone();
        }
        drop(models);
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.entry(model.clone()).or_default().clone()
    }

    pub(super) fn render(&self, out: &mut Exposition) {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let help = "Requests that ended; the model is empty where it is not known here.";
        let mut family = out.family("outrigger_cloud_requests_ended_total", help, Kind::Counter);
        self.unknown.results(&mut family, "");
        for (model, of) in models.iter() {
            of.results(&mut family, model.as_str());
        }
        let help = "Checks of what devices have answered themselves, which nobody waits for.";
        let mut family =
            out.family("outrigger_cloud_background_requests_total", help, Kind::Counter);
        self.background.results(&mut family, "");
        for (part, (name, help)) in PARTS.iter().enumerate() {
            let mut family = out.family(name, help, Kind::Histogram);
            for (model, of) in models.iter() {
                of.parts[part].render(&mut family, &[("model", model.as_str())]);
            }
        }
        let help = "From a request's header to its refusal, of those that were refused on it.";
        let mut family = out.family("outrigger_cloud_refusal_seconds", help, Kind::Histogram);
        for (transport, took) in Transport::ALL.into_iter().zip(&self.refusals) {
            took.render(&mut family, &[("transport", transport.as_str())]);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
