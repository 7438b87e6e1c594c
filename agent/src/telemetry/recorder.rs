//! What a request costs telemetry: a lock that is held for a few histogram updates, and for one in many a message into a
//! bounded queue. Nobody's answer waits for the disk, and what the queue does not take is counted as given up.

use super::sums::{Key, Sums};
use crate::engine::ActiveModel;
use edge::spool::sampling::{Kind, Sampler, SamplingPolicy};
use protocol::infer::{InferRequest, InferResponse, Placement};
use protocol::problem::Problem;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use telemetry::wire::record::What;
use telemetry::wire::{InferenceEvent, RolloutEvent, Sample, SampleTensor};

/// What goes to the thread that writes.
pub(super) enum Message {
    /// Something was recorded.
    Record(What),
    /// The agent ends: write what there is, and say so.
    End(SyncSender<()>),
}

/// What the owner lets be recorded of single requests.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) events: SamplingPolicy,
    pub(crate) samples: SamplingPolicy,
    /// Names of models whose inputs may be kept as samples.
    pub(crate) consented: Vec<String>,
}

/// Where requests leave what is recorded of them.
pub(crate) struct Recorder {
    queue: SyncSender<Message>,
    inner: Mutex<Inner>,
    /// Whether there is a key; without one, counters are all that is kept.
    has_key: AtomicBool,
    /// What the queue did not take.
    pub(super) untaken: AtomicU64,
    pub(super) untaken_samples: AtomicU64,
    consented: Vec<String>,
}

struct Inner {
    sums: Sums,
    events: Sampler,
    samples: Sampler,
}

/// A request that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) model: &'a ActiveModel,
    pub(crate) request_bytes: u64,
    pub(crate) result: &'a Result<InferResponse, Problem>,
    pub(crate) took: Duration,
}

impl Recorder {
    pub(super) fn new(queue: SyncSender<Message>, wanted: Wanted) -> Self {
        let (now, [a, b]) =
            (Instant::now(), [(); 2].map(|()| u64::from_le_bytes(::link::entropy())));
        let Wanted { events, samples, consented } = wanted;
        let (events, samples) = (Sampler::new(events, a, now), Sampler::new(samples, b, now));
        Self {
            queue,
            inner: Mutex::new(Inner { sums: Sums::default(), events, samples }),
            has_key: AtomicBool::new(false),
            untaken: AtomicU64::new(0),
            untaken_samples: AtomicU64::new(0),
            consented,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_has_key(&self, has_key: bool) {
        self.has_key.store(has_key, Relaxed);
    }

    /// Whether more than counters may be kept of this model.
    fn is_told(&self, model: &ActiveModel) -> bool {
        self.has_key.load(Relaxed) && !model.manifest().never_leaves_device
    }

    /// A request ended.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let (detailed, now) = (self.is_told(ended.model), Instant::now());
        let (key, kind) = (key(ended), kind(ended));
        let mut inner = self.inner();
        match ended.result {
            Ok(response) => inner.sums.answered(key, &response.verdict, ended.took, detailed),
            Err(_) => inner.sums.failed(key),
        }
        let weight = if detailed { inner.events.draw(kind, now) } else { None };
        drop(inner);
        if let Some(weight) = weight {
            self.send(What::Inference(event(ended, kind, weight)));
        }
    }

    /// Whether the owner lets inputs of this model be kept.
    pub(crate) fn may_sample(&self, model: &ActiveModel) -> bool {
        let name = &model.manifest().model;
        self.consented.iter().any(|own| own == name.as_str()) && self.is_told(model)
    }

    /// Keeps an input, if it is drawn.
    pub(crate) fn sample(&self, sampled: &Sampled<'_>) {
        if self.inner().samples.draw(sampled.kind, Instant::now()).is_none() {
            return;
        }
        let Sampled { model, request, kind, confidence, label, cloud_label } = sampled;
        let inputs = request.inputs.iter().map(|tensor| SampleTensor {
            name: tensor.name().to_owned(),
            datatype: tensor.datatype().as_str().to_owned(),
            shape: tensor.shape().to_vec(),
            data: tensor.data().to_vec(),
        });
        self.send(What::Sample(Sample {
            model: model.manifest().model.to_string(),
            version: model.target().version.get(),
            sampled: kind.as_str().into(),
            confidence: *confidence,
            label: label.unwrap_or_default().to_owned(),
            cloud_label: cloud_label.unwrap_or_default().to_owned(),
            inputs: inputs.collect(),
        }));
    }

    /// What became of a version.
    pub(super) fn rollout(&self, event: RolloutEvent) {
        if self.has_key.load(Relaxed) {
            self.send(What::Rollout(event));
        }
    }

    fn send(&self, what: What) {
        let untaken =
            if matches!(what, What::Sample(_)) { &self.untaken_samples } else { &self.untaken };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Message::Record(what))
        {
            untaken.fetch_add(1, Relaxed);
        }
    }

    /// Has everything written down, and waits for that.
    pub(crate) fn finish(&self, patience: Duration) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        if self.queue.send(Message::End(done)).is_ok() {
            let _ = wait.recv_timeout(patience); // a disk that stands still does not hold up the end
        }
    }

    pub(super) fn with_sums<T>(&self, then: impl FnOnce(&mut Sums) -> T) -> T {
        then(&mut self.inner().sums)
    }
}

/// An input that is worth keeping.
pub(crate) struct Sampled<'a> {
    pub(crate) model: &'a ActiveModel,
    pub(crate) request: &'a InferRequest,
    pub(crate) kind: Kind,
    pub(crate) confidence: Option<f32>,
    pub(crate) label: Option<&'a str>,
    pub(crate) cloud_label: Option<&'a str>,
}

fn key(ended: &Ended<'_>) -> Key {
    let name = &ended.model.manifest().model;
    let own = Some(ended.model.target().version);
    match ended.result {
        Ok(response) => {
            let verdict = &response.verdict;
            let (placement, reason) = (verdict.placement.as_str(), verdict.reason.as_str());
            Key::new(name, Some(verdict.version), placement, reason)
        }
        Err(problem) => Key::new(name, own, "", problem.code.as_str()),
    }
}

fn kind(ended: &Ended<'_>) -> Kind {
    ended.result.as_ref().map_or(Kind::Failed, |response| kind_of(response.verdict.placement))
}

/// What the device did not answer by itself, it was not sure of.
pub(crate) fn kind_of(placement: Placement) -> Kind {
    if placement == Placement::Edge { Kind::Ordinary } else { Kind::Hard }
}

fn event(ended: &Ended<'_>, kind: Kind, weight: f64) -> InferenceEvent {
    let Key { model, version, placement, reason } = key(ended);
    let mut event = InferenceEvent {
        model,
        version,
        placement: placement.into(),
        total_us: u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX),
        input_bytes: ended.request_bytes,
        execution_provider: ended.model.provider().as_str().to_owned(),
        sampled: kind.as_str().into(),
        weight,
        ..Default::default()
    };
    match ended.result {
        Ok(response) => {
            let timing = response.verdict.timing;
            event.reason = reason.into();
            event.confidence = response.verdict.confidence;
            (event.queue_us, event.infer_us, event.network_us) =
                (timing.queue_us, timing.infer_us, timing.network_us);
            event.output_bytes = response.outputs.iter().map(|t| t.data().len() as u64).sum();
        }
        Err(_) => event.error = reason.into(),
    }
    event
}
