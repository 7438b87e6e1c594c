//! One version of one model that answers, whether it is in memory at this moment or not.

use super::observers::{Observer, Observers, Seen, Tapped};
use super::shelf::Membership;
use super::source::Source;
use crate::evidence::Served;
use edge::offload::{Outlook, Profile};
use edge::update::Target;
use models::bundle::{BundleError, ProbeCase};
use models::providers::{Agreement, Choice, Provider};
use models::stream::{Piece, StreamState};
use models::worker::{Job, Refused};
use oip::Statistics;
use protocol::infer::InferRequest;
use protocol::manifest::Manifest;
use protocol::oip::ModelDescription;
use protocol::problem::{Problem, ProblemCode};
use protocol::residency::Standing;
use protocol::tensor::Tensor;
use protocol::transport::Allowances;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// One version of one model, proven.
pub(crate) struct ActiveModel {
    pub(super) target: Target,
    pub(super) membership: Membership,
    pub(super) source: Arc<Source>,
    pub(super) choice: Choice,
    pub(super) description: Arc<ModelDescription>,
    pub(super) statistics: Arc<Statistics>,
    pub(super) served: Arc<Served>,
    pub(super) cloud_variant: AtomicBool,
    /// What may be sent to it packed.
    pub(super) transports: Mutex<Arc<Allowances>>,
    /// What its requests have taught.
    pub(super) outlook: Mutex<Outlook>,
    /// Rung when a run ends.
    pub(super) left: Notify,
    pub(super) observers: Observers,
}

/// An answer of the edge model.
#[derive(Debug)]
pub(crate) struct EdgeAnswer {
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) confidence: Option<f32>,
    pub(crate) label: Option<String>,
    /// Where its sequence stands now, for a piece of one.
    pub(crate) stream: Option<StreamState>,
    pub(crate) queue_us: u64,
    pub(crate) infer_us: u64,
}

/// How a model runs on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// `resident`, `loading` or `on demand`.
    pub(crate) memory: String,
    /// What it takes in memory, measured.
    pub(crate) memory_bytes: u64,
    /// Who computes it, and why nobody else.
    pub(crate) choice: Choice,
}

impl ActiveModel {
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.source.bundle().manifest()
    }

    /// How it runs.
    pub(crate) fn running(&self) -> Running {
        let standing = self.membership.shelf.standing(self.membership.id);
        let (standing, memory_bytes) = standing.unwrap_or((Standing::OnDemand, 0));
        let memory = standing.as_str().to_owned();
        Running { memory, memory_bytes, choice: self.choice.clone() }
    }

    /// What clients are told about it.
    pub(crate) fn description(&self) -> &Arc<ModelDescription> {
        &self.description
    }

    /// What became of the requests to it.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What it has done in this life, for a cloud that looks closely.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// How many items a request holds.
    pub(crate) fn items(&self, request: &InferRequest) -> u64 {
        let first = request.inputs.first().and_then(|input| input.shape().first());
        match first {
            Some(items) if self.description.max_batch_size() > 0 => {
                u64::try_from(*items).unwrap_or(1)
            }
            _ => 1,
        }
    }

    /// What placement depends on.
    pub(crate) fn profile(&self) -> Profile {
        let manifest = self.manifest();
        let same_numbers = self.choice.probes == Agreement::Exact;
        let acceptance = manifest.calibration.as_ref().map(|c| c.acceptance(same_numbers));
        Profile {
            threshold: acceptance.map(|a| a.threshold),
            risk: acceptance.map(|a| a.risk),
            cloud_variant: self.cloud_variant.load(Relaxed),
            never_leaves_device: manifest.never_leaves_device,
        }
    }

    /// The cloud says whether it holds the larger variant.
    pub(crate) fn set_cloud_variant(&self, there: bool) {
        self.cloud_variant.store(there, Relaxed);
    }

    /// The cloud says what may be sent to it packed.
    pub(crate) fn set_transports(&self, allowed: Arc<Allowances>) {
        *self.transports.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    /// What may be sent to the cloud packed.
    pub(crate) fn transports(&self) -> Arc<Allowances> {
        self.transports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What its requests have taught so far.
    pub(crate) fn outlook(&self) -> MutexGuard<'_, Outlook> {
        self.outlook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of its requests run at a time.
    pub(crate) fn sessions(&self) -> u32 {
        u32::try_from(self.source.instances()).unwrap_or(1)
    }

    /// How long a run takes at most, as a rule, behind those that wait.
    pub(crate) fn high_run(&self) -> Duration {
        self.outlook().edge.estimate(self.sessions()).high
    }

    /// Who computes it.
    pub(crate) fn provider(&self) -> Provider {
        self.choice.provider
    }

    /// What a run takes as a rule, where enough have shown it.
    pub(crate) fn founded_run(&self) -> Option<Duration> {
        let estimate = self.outlook().edge.estimate(u32::MAX);
        estimate.is_founded().then_some(estimate.usual)
    }

    /// How many threads a run keeps busy at most.
    pub(crate) fn threads(&self) -> u32 {
        u32::try_from(self.source.threads()).unwrap_or(1)
    }

    /// The probes of its bundle, read anew. Blocks.
    pub(crate) fn probes(&self) -> Result<Vec<ProbeCase>, BundleError> {
        self.source.bundle().probes()
    }

    /// Whether it is in memory, or could be without another being unloaded.
    pub(crate) fn has_place(&self) -> bool {
        let standing = self.membership.shelf.standing(self.membership.id);
        standing.is_some_and(|(standing, bytes)| {
            standing == Standing::Resident || self.membership.shelf.has_room(bytes)
        })
    }

    /// Waits for a moment in which no run is under way.
    pub(crate) async fn until_idle(&self) {
        loop {
            let left = self.left.notified();
            if self.outlook().edge.is_idle() {
                return;
            }
            left.await;
        }
    }

    /// Has somebody look on at every run, for as long as the model answers.
    pub(crate) fn watch(&self, observer: Observer) {
        self.observers.watch(observer);
    }

    /// Has somebody look on at every run until the guard goes.
    pub(crate) fn tap(self: &Arc<Self>, observer: Observer) -> Tapped {
        Observers::tap(self, observer)
    }

    /// Runs the model, on a whole or a piece of a sequence; it is loaded first if it is not in memory; never later than the deadline.
    pub(crate) async fn run(
        &self,
        request: &InferRequest,
        piece: Option<Piece>,
        deadline: Instant,
    ) -> Result<EdgeAnswer, Problem> {
        if !self.observers.any() {
            return self.answer(request, piece, deadline).await;
        }
        let (alone, start) = (self.outlook().edge.is_idle(), Instant::now());
        let end = self.answer(request, piece, deadline).await;
        self.observers.show(&Seen { request, end: end.as_ref(), took: start.elapsed(), alone });
        end
    }

    async fn answer(
        &self,
        request: &InferRequest,
        piece: Option<Piece>,
        deadline: Instant,
    ) -> Result<EdgeAnswer, Problem> {
        let job = Job {
            inputs: request.inputs.clone(), // reference-counted bytes, no copy
            outputs: request.outputs.clone(),
            deadline: Some(deadline),
        };
        let _under_way = UnderWay::enter(self);
        let _at_work = self.membership.shelf.marks.enter(self.target.bundle);
        let lease = self.membership.shelf.acquire(&self.source, deadline).await?;
        let submitted = match piece {
            Some(piece) => lease.model.submit_stream(job, piece),
            None => lease.model.submit(job),
        };
        let ticket = submitted.map_err(|refused| self.overloaded(refused))?;
        let late = || {
            Problem::new(
                ProblemCode::DeadlineExceeded,
                "the model was not done before the deadline",
            )
            .hint("allow more time with the parameter \"timeout\" (microseconds)")
        };
        let answer =
            tokio::time::timeout_at(deadline.into(), ticket).await.map_err(|_| late())??;
        let ran = Duration::from_micros(answer.infer_us);
        self.outlook().edge.ran(ran, Instant::now());
        Ok(EdgeAnswer {
            outputs: answer.outputs,
            confidence: answer.confidence,
            label: answer.label,
            stream: answer.stream,
            queue_us: answer.queue_us,
            infer_us: answer.infer_us,
        })
    }

    fn overloaded(&self, refused: Refused) -> Problem {
        let queue = match refused {
            Refused::Full { capacity } => u32::try_from(capacity).unwrap_or(u32::MAX),
            Refused::Stopped => 1,
        };
        Problem::new(ProblemCode::Overloaded, refused.to_string())
            .hint("send fewer requests at once, or try again after retry_after_ms")
            .retry_after_ms(to_ms(self.usual_run().saturating_mul(queue)))
    }

    /// How long one run usually takes.
    fn usual_run(&self) -> Duration {
        self.outlook().edge.estimate(u32::MAX).usual
    }
}

/// Counts a run among those under way, however it ends.
struct UnderWay<'a>(&'a ActiveModel);

impl<'a> UnderWay<'a> {
    fn enter(model: &'a ActiveModel) -> Self {
        model.outlook().edge.entered();
        Self(model)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.outlook().edge.left();
        self.0.left.notify_waiters();
    }
}

fn to_ms(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
}
