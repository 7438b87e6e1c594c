//! What a model is loaded from, again and again: its bundle, and how it runs.

use super::shelf::Id;
use models::backend::Backend;
use models::bundle::{Bundle, BundleError};
use models::memory;
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use protocol::id::{ContentHash, ModelName};
use protocol::manifest::MODEL_FILE;
use protocol::problem::{Problem, ProblemCode, chain};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A model that was just loaded.
pub(super) struct Loaded {
    pub(super) model: LoadedModel,
    /// How much this process grew by it.
    pub(super) private_bytes: u64,
    pub(super) took: Duration,
}

/// Why a model is not in memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Probes(#[from] ProbeError),
}

/// After a failed load the next one is not tried before this: it would hash the whole bundle again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a model is loaded from.
pub(super) struct Source {
    id: Id,
    hash: ContentHash,
    folder: PathBuf,
    bundle: Bundle,
    options: ModelOptions,
    backend: Arc<dyn Backend>,
    usual_load_us: AtomicU64,
    /// What it was proven to take. It is not measured again: what goes on beside a later load, or
    /// memory that was freed before it, would change the figure and with it what finds room.
    private_bytes: u64,
    failure: Mutex<Option<(Instant, Problem)>>,
}

impl Source {
    pub(super) fn new(
        (id, hash): (Id, ContentHash),
        (folder, bundle): (PathBuf, Bundle),
        options: ModelOptions,
        backend: Arc<dyn Backend>,
        seen: Seen,
    ) -> Self {
        Self {
            id,
            hash,
            folder,
            bundle,
            options,
            backend,
            usual_load_us: AtomicU64::new(micros(seen.load)),
            private_bytes: seen.private_bytes,
            failure: Mutex::default(),
        }
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    pub(super) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// What the bundle is called.
    pub(super) fn bundle_hash(&self) -> ContentHash {
        self.hash
    }

    pub(super) fn name(&self) -> &ModelName {
        &self.bundle.manifest().model
    }

    pub(super) fn instances(&self) -> usize {
        self.options.sessions.max(1)
    }

    pub(super) fn threads(&self) -> usize {
        self.options.session.threads.max(1)
    }

    /// How long a load usually takes; nothing is known before the first.
    pub(super) fn usual_load(&self) -> Duration {
        Duration::from_micros(self.usual_load_us.load(Relaxed))
    }

    /// Loads the model anew. Every hash is checked as on the first day; one probe makes it ready, for
    /// the same bytes have answered all of them before. Blocks.
    pub(super) fn load_again(&self) -> Result<Loaded, String> {
        let load = || -> Result<Loaded, LoadError> {
            let bundle = Bundle::open(&self.folder, self.bundle.manifest().clone())?;
            load(self.backend.as_ref(), bundle, &self.options, |model| Ok(model.warm_up()?))
        };
        let mut loaded = load().map_err(|error| chain(&error))?;
        loaded.private_bytes = self.private_bytes;
        self.usual_load_us.store(micros(loaded.took), Relaxed);
        Ok(loaded)
    }

    /// Remembers a failed load for a while.
    pub(super) fn failed(&self, why: &str) -> Problem {
        let text = format!("the model {:?} does not load: {why}", self.name().as_str());
        let problem = Problem::new(ProblemCode::InferenceFailed, text)
            .hint("outrigger-agent check looks at its files");
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some((Instant::now(), problem.clone()));
        problem
    }

    /// The last failed load, if it was a moment ago.
    pub(super) fn recent_failure(&self) -> Option<Problem> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, problem) = failure.as_ref()?;
        (at.elapsed() < RETRY_AFTER).then(|| problem.clone())
    }
}

/// What former loads showed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) private_bytes: u64,
    pub(super) load: Duration,
}

/// Loads a model and makes it ready, measuring what that takes. Blocks; to be called by one at a
/// time, or the measures mix.
pub(super) fn load(
    backend: &dyn Backend,
    bundle: Bundle,
    options: &ModelOptions,
    make_ready: impl FnOnce(&LoadedModel) -> Result<(), LoadError>,
) -> Result<Loaded, LoadError> {
    let start = Instant::now();
    backend.start().map_err(ModelError::from)?;
    memory::give_back(); // what a load leaves over is neither this model's nor anybody's
    let before = memory::private_bytes();
    let file_bytes = file_bytes(&bundle);
    let model = LoadedModel::load(backend, bundle, options)?;
    make_ready(&model)?;
    memory::give_back();
    let grown = before.zip(memory::private_bytes()).map(|(old, new)| new.saturating_sub(old));
    let private_bytes = grown.unwrap_or(0).max(file_bytes);
    Ok(Loaded { model, private_bytes, took: start.elapsed() })
}

/// The best guess of a model's memory before it was loaded once.
pub(super) fn file_bytes(bundle: &Bundle) -> u64 {
    bundle.manifest().files.get(MODEL_FILE).map_or(0, |file| file.size_bytes)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
