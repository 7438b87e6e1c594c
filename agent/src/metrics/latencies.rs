//! How long answers took, by model: whole requests by placement, and what they consist of.

use link::metrics::{Exposition, Histogram, Kind};
use protocol::id::ModelName;
use protocol::infer::{Placement, Verdict};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

const PLACEMENTS: [&str; 3] = ["edge", "cloud", "edge-degraded"];
const PARTS: [(&str, &str); 3] = [
    (
        "outrigger_queue_seconds",
        "Time of answered requests in the queue of the model that answered.",
    ),
    ("outrigger_infer_seconds", "Time of pre-processing and running the model that answered."),
    ("outrigger_network_seconds", "Time on the way to the cloud and back, of answers from there."),
];

/// The histograms of one model.
#[derive(Debug, Default)]
struct OfModel {
    /// In the order of [`PLACEMENTS`].
    requests: [Histogram; 3],
    /// In the order of [`PARTS`].
    parts: [Histogram; 3],
}

/// The histograms. Only models that answered have any, so their number is bounded by what an
/// operator assigned.
#[derive(Debug, Default)]
pub(crate) struct Latencies(RwLock<BTreeMap<ModelName, Arc<OfModel>>>);

impl Latencies {
    /// An answer was given, `took` after its request was read.
    pub(crate) fn record(&self, model: &ModelName, verdict: &Verdict, took: Duration) {
        let of = self.of(model);
        let placement = match verdict.placement {
            Placement::Edge => 0,
            Placement::Cloud => 1,
            Placement::EdgeDegraded => 2,
        };
        of.requests[placement].record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let timing = &verdict.timing;
        of.parts[0].record(timing.queue_us);
        of.parts[1].record(timing.infer_us);
        if verdict.placement == Placement::Cloud {
            of.parts[2].record(timing.network_us);
        }
    }

    fn of(&self, model: &ModelName) -> Arc<OfModel> {
        let models = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = models.get(model) {
            return found.clone();
        }
        drop(models);
        let mut models = self.0.write().unwrap_or_else(PoisonError::into_inner);
        models.entry(model.clone()).or_default().clone()
    }

    pub(super) fn render(&self, out: &mut Exposition) {
        let models = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let help = "Time from a request's arrival to its answer, by where the answer came from.";
        let mut family = out.family("outrigger_request_seconds", help, Kind::Histogram);
        for (model, of) in models.iter() {
            for (placement, histogram) in PLACEMENTS.iter().zip(&of.requests) {
                let labels = [("model", model.as_str()), ("placement", placement)];
                histogram.render(&mut family, &labels);
            }
        }
        for (part, (name, help)) in PARTS.iter().enumerate() {
            let mut family = out.family(name, help, Kind::Histogram);
            for (model, of) in models.iter() {
                of.parts[part].render(&mut family, &[("model", model.as_str())]);
            }
        }
    }
}
