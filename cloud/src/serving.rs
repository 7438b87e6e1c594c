//! The cloud variants: which of them are known, which are loaded, and who may ask them now.
//!
//! A variant is loaded on demand from the blobs, by one task at a time; the least recently used
//! ones are unloaded beyond [`LOADED_MAX`]. Admission is decided on a request's header, before its
//! tensors are read: by the model's queue, and by the memory that all tensors in flight share.

use fleet::admission::Admission;
use models::backend::Backend;
use models::bundle::{Bundle, BundleError};
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use protocol::id::{ContentHash, ModelName, Version};
use protocol::manifest::{InvalidManifest, Manifest, SignedManifest};
use protocol::problem::{Problem, ProblemCode};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blobs::Blobs;

/// Models that are loaded at a time.
pub const LOADED_MAX: usize = 8;
/// Requests per model that are taken at a time.
pub const REQUESTS_PER_MODEL: u32 = 64;
/// Sessions per model at most; fewer on a machine with fewer cores.
const SESSIONS_MAX: usize = 4;
/// Tensor bytes of all requests in flight: 1 GiB, counted in KiB.
const TENSOR_MEMORY_KIB: u32 = 1 << 20;

/// Why a cloud variant cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// This server runs without ONNX Runtime.
    #[error("this server runs without ONNX Runtime, so it cannot run models")]
    NoRuntime,
    /// Its files could not be laid out.
    #[error("cannot lay the bundle's files out")]
    LayOut(#[source] std::io::Error),
    /// The stored manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    /// Its files are not what the manifest says.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The model does not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model does not answer its probes as expected.
    #[error(transparent)]
    Probes(#[from] ProbeError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// A cloud variant that requests can ask for.
pub struct Slot {
    bundle: ContentHash,
    manifest: Manifest,
    admission: Mutex<Admission>,
    loaded: tokio::sync::Mutex<Option<Arc<LoadedModel>>>,
    used: AtomicU64,
}

impl Slot {
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was taken. Dropping it gives its place back.
pub struct Admitted {
    slot: Arc<Slot>,
    _memory: OwnedSemaphorePermit,
    ran: Option<Duration>,
}

impl Admitted {
    /// How long the model ran, so that the next waits are estimated better.
    pub fn ran(&mut self, time: Duration) {
        self.ran = Some(time);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.slot.admission().release(self.ran);
    }
}

/// All cloud variants.
pub struct Serving {
    backend: Option<Arc<dyn Backend>>,
    blobs: Blobs,
    folder: PathBuf,
    options: ModelOptions,
    slots: Mutex<HashMap<(ModelName, Version), Arc<Slot>>>,
    uses: AtomicU64,
    memory: Arc<Semaphore>,
}

impl Serving {
    /// Serves from these blobs, laying bundles out in `folder`; without a backend every request is
    /// refused.
    pub fn new(backend: Option<Arc<dyn Backend>>, blobs: Blobs, folder: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let options = ModelOptions { sessions: cores.min(SESSIONS_MAX), ..Default::default() };
        Self {
            backend,
            blobs,
            folder,
            options,
            slots: Mutex::default(),
            uses: AtomicU64::new(0),
            memory: Arc::new(Semaphore::new(TENSOR_MEMORY_KIB as usize)),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(ModelName, Version), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pushed cloud variant known, with its model when that is loaded already.
    ///
    /// # Errors
    /// [`ServeError::Manifest`].
    pub fn add(
        &self,
        signed: &SignedManifest,
        loaded: Option<Arc<LoadedModel>>,
    ) -> Result<(), ServeError> {
        let manifest = Manifest::from_json(signed.manifest.as_bytes())?;
        let sessions = u32::try_from(self.options.sessions).unwrap_or(1);
        let slot = Slot {
            bundle: signed.bundle(),
            admission: Mutex::new(Admission::new(REQUESTS_PER_MODEL, sessions)),
            loaded: tokio::sync::Mutex::new(loaded),
            used: AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed)),
            manifest,
        };
        let key = (slot.manifest.model.clone(), slot.manifest.version);
        self.slots().entry(key).or_insert_with(|| Arc::new(slot));
        self.unload_oldest();
        Ok(())
    }

    /// Takes a request for exactly this version, or refuses it at once.
    ///
    /// # Errors
    /// A [`Problem`] for the agent.
    pub fn admit(
        &self,
        model: &ModelName,
        version: Version,
        tensor_bytes: u64,
        remaining: Duration,
    ) -> Result<Admitted, Problem> {
        if self.backend.is_none() {
            return Err(ServeError::NoRuntime.into());
        }
        let slot = self.slots().get(&(model.clone(), version)).cloned();
        let slot = slot.ok_or_else(|| {
            let text = format!("the cloud has no variant of {model}@{version}");
            Problem::new(ProblemCode::NotFound, text).hint("push it with: outrigger model push")
        })?;
        let kib = u32::try_from(tensor_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let memory = self.memory.clone().try_acquire_many_owned(kib).map_err(|_| {
            let text = "the requests in progress fill the server's memory for tensors";
            Problem::new(ProblemCode::Overloaded, text).hint("try again soon").retry_after_ms(100)
        })?;
        slot.admission().admit(remaining)?;
        Ok(Admitted { slot, _memory: memory, ran: None })
    }

    /// The model that an admitted request asks, loaded if it was not.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn model(
        self: &Arc<Self>,
        request: &Admitted,
    ) -> Result<Arc<LoadedModel>, ServeError> {
        self.load_slot(&request.slot).await
    }

    /// Loads a version that will be asked for soon; nothing where there is no such variant.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn preload(
        self: &Arc<Self>,
        model: &ModelName,
        version: Version,
    ) -> Result<(), ServeError> {
        let slot = self.slots().get(&(model.clone(), version)).cloned();
        match slot {
            Some(slot) if self.backend.is_some() => self.load_slot(&slot).await.map(drop),
            _ => Ok(()),
        }
    }

    async fn load_slot(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<LoadedModel>, ServeError> {
        slot.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut loaded = slot.loaded.lock().await;
        if let Some(model) = &*loaded {
            return Ok(model.clone());
        }
        let model = self.load(slot.bundle, slot.manifest.clone()).await?;
        *loaded = Some(model.clone());
        drop(loaded);
        self.unload_oldest();
        Ok(model)
    }

    /// Lays a bundle out, loads it, and checks its probes.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind.
    pub async fn load(
        self: &Arc<Self>,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<LoadedModel>, ServeError> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || this.load_blocking(bundle, manifest));
        task.await.unwrap_or(Err(ServeError::Stopping))
    }

    fn load_blocking(
        &self,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<LoadedModel>, ServeError> {
        let backend = self.backend.as_deref().ok_or(ServeError::NoRuntime)?;
        let folder = self.folder.join(bundle.to_string());
        self.blobs.lay_out(&manifest, &folder).map_err(ServeError::LayOut)?;
        let load = || {
            let opened = Bundle::open(&folder, manifest)?;
            let model = LoadedModel::load(backend, opened, &self.options)?;
            model.check_probes()?;
            Ok(Arc::new(model))
        };
        let result = load();
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&folder); // laid out anew at the next attempt
        }
        result
    }

    /// Unloads the least recently used models beyond the limit. One that is being loaded or asked
    /// at this moment keeps its place.
    fn unload_oldest(&self) {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let mut loaded: Vec<_> = slots
            .iter()
            .filter_map(|slot| {
                Some((slot.used.load(Ordering::Relaxed), slot.loaded.try_lock().ok()?))
            })
            .filter(|(_, model)| model.is_some())
            .collect();
        loaded.sort_by_key(|(used, _)| *used);
        let surplus = loaded.len().saturating_sub(LOADED_MAX);
        for (_, mut model) in loaded.into_iter().take(surplus) {
            let model = model.take();
            // Ending a model waits for its threads.
            tokio::task::spawn_blocking(move || drop(model));
        }
    }

    /// How many models are known, and how many of them are loaded.
    pub fn counts(&self) -> (usize, usize) {
        let slots: Vec<_> = self.slots().values().cloned().collect();
        let is_loaded =
            |slot: &&Arc<Slot>| slot.loaded.try_lock().is_ok_and(|model| model.is_some());
        (slots.len(), slots.iter().filter(is_loaded).count())
    }
}

impl From<ServeError> for Problem {
    fn from(error: ServeError) -> Self {
        let text = protocol::problem::chain(&error);
        match error {
            ServeError::NoRuntime => Problem::new(ProblemCode::NotFound, text)
                .hint("the operator can start outrigger-cloud with --runtime"),
            ServeError::Stopping => Problem::new(ProblemCode::GoingAway, text),
            _ => Problem::new(ProblemCode::InferenceFailed, text)
                .hint("the operator can look into the server's log"),
        }
    }
}
