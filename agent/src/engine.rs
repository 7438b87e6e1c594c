//! The models that answer now. A new version takes the place of the old one in one step: requests
//! that hold the old one finish on it, and its session ends with the last of them.

use edge::offload::Profile;
use edge::update::Target;
use models::backend::{Backend, SessionOptions};
use models::bundle::{Bundle, BundleError};
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use models::worker::{Job, Refused};
use protocol::id::{ModelName, Version};
use protocol::infer::InferRequest;
use protocol::manifest::Manifest;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// One version of one model, loaded and proven.
pub(crate) struct ActiveModel {
    target: Target,
    model: LoadedModel,
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

    /// Runs the model; never later than the deadline.
    pub(crate) async fn run(
        &self,
        request: &InferRequest,
        deadline: Instant,
    ) -> Result<EdgeAnswer, Problem> {
        let job = Job {
            inputs: request.inputs.clone(), // reference-counted bytes, no copy
            outputs: request.outputs.clone(),
            deadline: Some(deadline),
        };
        let ticket = self.model.submit(job).map_err(|refused| self.overloaded(refused))?;
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

/// Loads models and holds the active ones.
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    options: ModelOptions,
    active: RwLock<BTreeMap<ModelName, Arc<ActiveModel>>>,
}

impl Engine {
    pub(crate) fn new(backend: Arc<dyn Backend>, runtime: &crate::config::Runtime) -> Self {
        let session = SessionOptions { threads: runtime.threads, ..SessionOptions::default() };
        let options =
            ModelOptions { sessions: runtime.sessions, queue_capacity: runtime.queue, session };
        Self { backend, options, active: RwLock::default() }
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
        Ok(ActiveModel {
            target,
            model,
            cloud_variant: AtomicBool::new(cloud_variant),
            usual_run_us: AtomicU64::new(0),
        })
    }

    /// From now on this one answers.
    pub(crate) fn activate(&self, name: &ModelName, model: Arc<ActiveModel>) {
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let old = active.insert(name.clone(), model);
        drop(active);
        drop(old); // outside the lock: ending a session takes time
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
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        let absent =
            |text: String, hint: String| Err(Problem::new(ProblemCode::NotFound, text).hint(hint));
        match active.get(name) {
            None => {
                let known: Vec<_> = active.keys().map(ModelName::as_str).collect();
                let known = if known.is_empty() { "none yet".into() } else { known.join(", ") };
                absent(
                    format!("no model {name:?} on this device", name = name.as_str()),
                    format!("models here: {known}"),
                )
            }
            Some(model) if version.is_some_and(|v| v != model.target.version) => absent(
                format!("version {} of {name} is not active here", version.map_or(0, Version::get)),
                format!("version {} is; leave the version out", model.target.version),
            ),
            Some(model) => Ok(model.clone()),
        }
    }

    /// Whether any model answers.
    pub(crate) fn is_ready(&self) -> bool {
        !self.active.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
