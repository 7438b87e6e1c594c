//! The models that answer now. A new version takes the place of the old one in one step: requests
//! that hold the old one finish on it, and its session ends with the last of them. A model that an
//! application unloaded stays installed and answers nobody until it is loaded.

use oip::Statistics;

use edge::offload::Profile;
use edge::update::Target;
use models::backend::{Backend, SessionOptions};
use models::bundle::{Bundle, BundleError};
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use models::stream::{Piece, StreamState};
use models::worker::{Job, Refused};
use protocol::id::{ModelName, Version};
use protocol::infer::InferRequest;
use protocol::manifest::Manifest;
use protocol::oip::ModelDescription;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// One version of one model, loaded and proven.
pub(crate) struct ActiveModel {
    target: Target,
    model: LoadedModel,
    description: Arc<ModelDescription>,
    statistics: Arc<Statistics>,
    cloud_variant: AtomicBool,
    /// Smoothed time of a run, in microseconds.
    usual_run_us: AtomicU64,
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

impl ActiveModel {
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.model.manifest()
    }

    /// What clients are told about it.
    pub(crate) fn description(&self) -> &Arc<ModelDescription> {
        &self.description
    }

    /// What became of the requests to it.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.statistics
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
        Profile {
            threshold: manifest.calibration.as_ref().map(|c| c.threshold),
            cloud_variant: self.cloud_variant.load(Relaxed),
            never_leaves_device: manifest.never_leaves_device,
        }
    }

    /// The cloud says whether it holds the larger variant.
    pub(crate) fn set_cloud_variant(&self, there: bool) {
        self.cloud_variant.store(there, Relaxed);
    }

    /// How long a run usually takes.
    pub(crate) fn usual_run(&self) -> Duration {
        Duration::from_micros(self.usual_run_us.load(Relaxed))
    }

    /// Runs the model, on a whole or a piece of a sequence; never later than the deadline.
    pub(crate) async fn run(
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
        let submitted = match piece {
            Some(piece) => self.model.submit_stream(job, piece),
            None => self.model.submit(job),
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
        self.learn(answer.infer_us);
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

    fn learn(&self, infer_us: u64) {
        let usual = self.usual_run_us.load(Relaxed);
        let next = if usual == 0 { infer_us } else { (usual * 7 + infer_us) / 8 };
        self.usual_run_us.store(next, Relaxed); // a lost update between threads does no harm
    }
}

fn to_ms(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Why a bundle must not answer anybody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveError {
    #[error("refused: the bundle is not what was signed")]
    Bundle(#[from] BundleError),
    #[error("refused: the model does not load")]
    Model(#[from] ModelError),
    #[error("refused: the model does not answer its probes as it should")]
    Probes(#[from] ProbeError),
}

/// An installed model.
enum Slot {
    Answering(Arc<ActiveModel>),
    Unloaded { target: Target, statistics: Arc<Statistics> },
}

impl Slot {
    fn target(&self) -> Target {
        match self {
            Slot::Answering(model) => model.target,
            Slot::Unloaded { target, .. } => *target,
        }
    }

    fn statistics(&self) -> &Arc<Statistics> {
        match self {
            Slot::Answering(model) => &model.statistics,
            Slot::Unloaded { statistics, .. } => statistics,
        }
    }
}

/// Loads models and holds the installed ones.
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    options: ModelOptions,
    slots: RwLock<BTreeMap<ModelName, Slot>>,
}

/// Why an unloaded model answers nobody.
pub(crate) const UNLOADED: &str =
    "unloaded; it answers after a load, or when the agent starts anew";

impl Engine {
    pub(crate) fn new(backend: Arc<dyn Backend>, runtime: &crate::config::Runtime) -> Self {
        let session = SessionOptions { threads: runtime.threads, ..SessionOptions::default() };
        let options =
            ModelOptions { sessions: runtime.sessions, queue_capacity: runtime.queue, session };
        Self { backend, options, slots: RwLock::default() }
    }

    /// Reads a bundle, checks every hash, loads the model and answers its probes. Blocks.
    ///
    /// # Errors
    /// Why this bundle must not answer anybody.
    pub(crate) fn prove(
        &self,
        folder: &Path,
        manifest: Manifest,
        target: Target,
        cloud_variant: bool,
    ) -> Result<ActiveModel, ProveError> {
        let bundle = Bundle::open(folder, manifest)?;
        let model = LoadedModel::load(self.backend.as_ref(), bundle, &self.options)?;
        model.check_probes()?;
        let description =
            ModelDescription::new(model.manifest(), model.labels(), model.instances());
        Ok(ActiveModel {
            target,
            model,
            description: Arc::new(description),
            statistics: Arc::default(),
            cloud_variant: AtomicBool::new(cloud_variant),
            usual_run_us: AtomicU64::new(0),
        })
    }

    fn slots(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ModelName, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this one answers.
    pub(crate) fn activate(&self, name: &ModelName, model: Arc<ActiveModel>) {
        let old = self.slots_mut().insert(name.clone(), Slot::Answering(model));
        drop(old); // outside the lock: ending a session takes time
    }

    /// The installed version, whether it answers or not.
    pub(crate) fn target(&self, name: &ModelName) -> Option<Target> {
        self.slots().get(name).map(Slot::target)
    }

    /// The installed version, if it was unloaded.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] for a model that is not installed.
    pub(crate) fn unloaded(&self, name: &ModelName) -> Result<Option<Target>, Problem> {
        let slots = self.slots();
        match slots.get(name) {
            None => Err(absent(name, &slots)),
            Some(Slot::Answering(_)) => Ok(None),
            Some(Slot::Unloaded { target, .. }) => Ok(Some(*target)),
        }
    }

    /// Stops a model from answering and frees its memory.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] for a model that is not installed.
    pub(crate) fn unload(&self, name: &ModelName) -> Result<(), Problem> {
        let mut slots = self.slots_mut();
        let Some(slot) = slots.get_mut(name) else { return Err(absent(name, &slots)) };
        let unloaded =
            Slot::Unloaded { target: slot.target(), statistics: slot.statistics().clone() };
        let old = std::mem::replace(slot, unloaded);
        drop(slots);
        drop(old);
        Ok(())
    }

    /// Lets a model answer again that was unloaded. Where another version was installed meanwhile,
    /// that one goes on answering.
    pub(crate) fn reload(&self, name: &ModelName, mut model: ActiveModel) {
        if let Some(slot @ Slot::Unloaded { .. }) = self.slots_mut().get_mut(name)
            && slot.target() == model.target
        {
            model.statistics = slot.statistics().clone();
            *slot = Slot::Answering(Arc::new(model));
        }
    }

    /// The model that answers to this name.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`], with what is there instead.
    pub(crate) fn get(
        &self,
        name: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ActiveModel>, Problem> {
        let slots = self.slots();
        match slots.get(name) {
            None => Err(absent(name, &slots)),
            Some(Slot::Unloaded { .. }) => {
                let text = format!("the model {:?} is {UNLOADED}", name.as_str());
                Err(Problem::new(ProblemCode::NotFound, text))
            }
            Some(Slot::Answering(model)) if version.is_some_and(|v| v != model.target.version) => {
                let wanted = version.map_or(0, Version::get);
                let text = format!("version {wanted} of {name} is not active here");
                let hint = format!("version {} is; leave the version out", model.target.version);
                Err(Problem::new(ProblemCode::NotFound, text).hint(hint))
            }
            Some(Slot::Answering(model)) => Ok(model.clone()),
        }
    }

    /// Whether any model answers.
    pub(crate) fn is_ready(&self) -> bool {
        self.slots().values().any(|slot| matches!(slot, Slot::Answering(_)))
    }

    /// Every installed model.
    pub(crate) fn index(&self) -> Vec<ModelIndex> {
        let entry = |(name, slot): (&ModelName, &Slot)| {
            let (state, reason) = match slot {
                Slot::Answering(_) => (oip::state::READY, ""),
                Slot::Unloaded { .. } => (oip::state::UNAVAILABLE, UNLOADED),
            };
            ModelIndex {
                name: name.to_string(),
                version: slot.target().version.to_string(),
                state: state.into(),
                reason: reason.into(),
            }
        };
        self.slots().iter().map(entry).collect()
    }

    /// What became of the requests to every installed model.
    pub(crate) fn statistics(&self) -> Vec<ModelStatistics> {
        let read =
            |(name, slot): (&ModelName, &Slot)| slot.statistics().read(name, slot.target().version);
        self.slots().iter().map(read).collect()
    }
}

fn absent(name: &ModelName, slots: &BTreeMap<ModelName, Slot>) -> Problem {
    let known: Vec<_> = slots.keys().map(ModelName::as_str).collect();
    let known = if known.is_empty() { "none yet".into() } else { known.join(", ") };
    let text = format!("no model {:?} on this device", name.as_str());
    Problem::new(ProblemCode::NotFound, text).hint(format!("models here: {known}"))
}
