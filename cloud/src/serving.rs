//! The cloud variants: which of them are known, which are loaded, and who may ask them now.
//!
//! Versions of a model stand side by side; its policy says which of them answer clients of the
//! standard (`family`). A newer push is loaded and proven before it is known here, so new
//! requests go to it at once, and those in flight end on the version that they began with. What no
//! policy names and no device asks is let go of, and so are the least recently used models beyond
//! [`LOADED_MAX`]; a model that goes gives its memory back (`resident`).
//!
//! Admission is decided on a request's header, before its tensors are read: by the model's queue,
//! and by the memory that all requests in flight share. [`Serving::admit`] and [`Serving::infer`]
//! are the only way in.

use fleet::admission::Admission;
use models::backend::Backend;
use models::bundle::{Bundle, BundleError};
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use models::worker::{Answer, Job, Refused};
use oip::Ask;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::infer::{InferRequest, InferResponse, Placement, Reason, Timing, Verdict};
use protocol::manifest::{InvalidManifest, Manifest, SignedManifest};
use protocol::problem::{Problem, ProblemCode};
use protocol::versions::VersionPolicy;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blobs::Blobs;

mod family;
mod listing;
mod resident;
mod slot;

pub use family::Asker;
use family::Family;
pub use resident::Resident;
use slot::Slot;

/// Models that are loaded at a time.
pub const LOADED_MAX: usize = 8;
/// Requests per model that are taken at a time.
pub const REQUESTS_PER_MODEL: u32 = 64;
/// Sessions per model at most; fewer on a machine with fewer cores.
const SESSIONS_MAX: usize = 4;
/// Bytes of all requests in flight: 1 GiB, counted in KiB.
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

/// A request that was taken. Dropping it gives its place back.
#[derive(Debug)]
pub struct Admitted {
    slot: Arc<Slot>,
    version: Version,
    memory: OwnedSemaphorePermit,
    /// How long the model ran, so that the next waits are estimated better.
    ran: Option<Duration>,
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
    families: RwLock<BTreeMap<ModelName, Family>>,
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
            families: RwLock::default(),
            uses: AtomicU64::new(0),
            memory: Arc::new(Semaphore::new(TENSOR_MEMORY_KIB as usize)),
        }
    }

    fn families(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, Family>> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn families_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ModelName, Family>> {
        self.families.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pushed cloud variant known, with its model when that is loaded already: from now on
    /// it answers, where the policy says so.
    ///
    /// # Errors
    /// [`ServeError::Manifest`].
    pub fn add(
        &self,
        signed: &SignedManifest,
        loaded: Option<Arc<Resident>>,
    ) -> Result<(), ServeError> {
        let manifest = Manifest::from_json(signed.manifest.as_bytes())?;
        let sessions = u32::try_from(self.options.sessions).unwrap_or(1);
        let (model, version) = (manifest.model.clone(), manifest.version);
        let admission = Admission::new(REQUESTS_PER_MODEL, sessions);
        let slot = Slot::new(signed.bundle(), manifest, admission, loaded);
        slot.used.store(self.next_use(), Relaxed);
        self.families_mut().entry(model).or_default().add(version, slot);
        self.release_unwanted();
        Ok(())
    }

    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Relaxed)
    }

    /// Says which versions of a model answer.
    pub fn set_policy(&self, model: &ModelName, policy: VersionPolicy) {
        if let Some(family) = self.families_mut().get_mut(model) {
            family.set_policy(policy);
        }
    }

    /// Takes a request that must be answered within `remaining`, or refuses it at once.
    ///
    /// # Errors
    /// A [`Problem`] for who asks.
    pub fn admit(
        &self,
        asker: Asker,
        ask: &Ask<'_>,
        remaining: Duration,
    ) -> Result<Admitted, Problem> {
        if self.backend.is_none() {
            return Err(ServeError::NoRuntime.into());
        }
        let (version, slot) = self.find(asker, ask.model, ask.version)?;
        if asker == Asker::Device {
            slot.device_asks();
        }
        // What does not say how long it is was counted by the intake, as it arrived.
        let bytes = ask.body_bytes.unwrap_or(0);
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let memory = self.memory.clone().try_acquire_many_owned(kib).map_err(|_| {
            let text = "the requests in progress fill the server's memory for tensors";
            Problem::new(ProblemCode::Overloaded, text).hint("try again soon").retry_after_ms(100)
        })?;
        slot.admission().admit(remaining)?;
        Ok(Admitted { slot, version, memory, ran: None })
    }

    fn find(
        &self,
        asker: Asker,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<(Version, Arc<Slot>), Problem> {
        let families = self.families();
        let family = families.get(model).ok_or_else(|| {
            let text = format!("the cloud has no variant of {model}");
            Problem::new(ProblemCode::NotFound, text).hint("push it with: outrigger model push")
        })?;
        let (version, slot) = family.find(asker, model, version)?;
        Ok((version, slot.clone()))
    }

    /// Answers a request that was taken, before its deadline, or says why there is no answer.
    /// Dropping the future cancels it.
    ///
    /// # Errors
    /// A [`Problem`] for who asks.
    pub async fn infer(
        self: &Arc<Self>,
        mut admitted: Admitted,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<InferResponse, Problem> {
        let began = Instant::now();
        if request.sequence.is_some() {
            let text = "the cloud keeps no sequences";
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("ask an agent, or send the state with each request"));
        }
        admitted.hold(&request);
        let items = items(&request);
        let run = self.run(&mut admitted, request, deadline);
        let result = tokio::time::timeout_at(deadline.into(), run).await;
        let result = result.unwrap_or_else(|_| Err(late()));
        match &result {
            Ok(_) => admitted.slot.statistics.answered(items, began.elapsed()),
            Err(_) => admitted.slot.statistics.failed(began.elapsed()),
        }
        result
    }

    async fn run(
        self: &Arc<Self>,
        admitted: &mut Admitted,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<InferResponse, Problem> {
        let model = self.load_slot(&admitted.slot).await?;
        let InferRequest { inputs, outputs, model: name, id, .. } = request;
        let ticket = model.submit(Job { inputs, outputs, deadline: Some(deadline) });
        let answer = ticket.map_err(refused)?.await.map_err(Problem::from)?;
        admitted.ran = Some(Duration::from_micros(answer.infer_us));
        admitted.slot.statistics.ran(answer.queue_us, answer.infer_us);
        Ok(respond(name, id, admitted.version, answer))
    }

    /// Loads a version that devices will ask for soon; nothing where there is no such variant.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn preload(
        self: &Arc<Self>,
        model: &ModelName,
        version: Version,
    ) -> Result<(), ServeError> {
        match self.find(Asker::Device, model, Some(version)) {
            Ok((_, slot)) if self.backend.is_some() => {
                slot.device_asks();
                self.load_slot(&slot).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Loads the versions of every model that answer clients, as many as fit. One that does not
    /// load says so in the index, and is no reason for the others to wait.
    pub async fn preload_answering(self: &Arc<Self>) {
        if self.backend.is_none() {
            return;
        }
        for slot in self.wanted().into_iter().take(LOADED_MAX) {
            if let Err(error) = self.load_slot(&slot).await {
                tracing::warn!(model = %slot.manifest.model, %error, "a model does not load");
            }
        }
    }

    /// What the policies name, the newest of each model first.
    fn wanted(&self) -> Vec<Arc<Slot>> {
        let families = self.families();
        let mut wanted = Vec::new();
        for family in families.values().filter(|family| !family.is_unloaded()) {
            let answering = family.answering();
            let slots = family.slots().filter(|(version, _)| answering.contains(version));
            let slots: Vec<_> = slots.map(|(_, slot)| slot.clone()).collect();
            wanted.extend(slots.into_iter().rev().enumerate());
        }
        wanted.sort_by_key(|(age, _)| *age);
        wanted.into_iter().map(|(_, slot)| slot).collect()
    }

    async fn load_slot(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Resident>, ServeError> {
        slot.used.store(self.next_use(), Relaxed);
        let mut loaded = slot.loaded.lock().await;
        if let Some(model) = &*loaded {
            return Ok(model.clone());
        }
        let model = self.load(slot.bundle, slot.manifest.clone()).await;
        let model = model.inspect_err(|error| slot.failed(protocol::problem::chain(error)))?;
        slot.describe_loaded(&model);
        *loaded = Some(model.clone());
        drop(loaded);
        self.release_oldest();
        Ok(model)
    }

    /// Lays a bundle out, loads it, and checks its probes, so that it is warm when it is known.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind.
    pub async fn load(
        self: &Arc<Self>,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<Resident>, ServeError> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || this.load_blocking(bundle, manifest));
        task.await.unwrap_or(Err(ServeError::Stopping))
    }

    fn load_blocking(
        &self,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<Resident>, ServeError> {
        let backend = self.backend.as_deref().ok_or(ServeError::NoRuntime)?;
        let folder = self.folder.join(bundle.to_string());
        self.blobs.lay_out(&manifest, &folder).map_err(ServeError::LayOut)?;
        let load = || {
            let opened = Bundle::open(&folder, manifest)?;
            let model = LoadedModel::load(backend, opened, &self.options)?;
            model.check_probes()?;
            Ok(Arc::new(Resident::new(model)))
        };
        let result = load();
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&folder); // laid out anew at the next attempt
        }
        result
    }

    /// Lets a model answer again that was unloaded; it is loaded when this returns.
    ///
    /// # Errors
    /// `NotFound`, or why its newest version does not load.
    pub async fn load_model(self: &Arc<Self>, model: &ModelName) -> Result<(), Problem> {
        self.set_unloaded(model, false)?;
        let (_, slot) = self.find(Asker::Client, model, None)?;
        self.load_slot(&slot).await?;
        Ok(())
    }

    /// Stops a model from answering anybody, devices too, and frees its memory once the requests
    /// in flight have ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn unload_model(&self, model: &ModelName) -> Result<(), Problem> {
        let slots = self.set_unloaded(model, true)?;
        for slot in slots {
            *slot.loaded.lock().await = None;
        }
        Ok(())
    }

    fn set_unloaded(&self, model: &ModelName, unloaded: bool) -> Result<Vec<Arc<Slot>>, Problem> {
        let mut families = self.families_mut();
        let absent = || {
            let text = format!("the cloud has no variant of {model}");
            Problem::new(ProblemCode::NotFound, text)
        };
        let family = families.get_mut(model).ok_or_else(absent)?;
        family.set_unloaded(unloaded);
        Ok(family.slots().map(|(_, slot)| slot.clone()).collect())
    }

    /// Lets go of what no policy names and no device asks, and of what is beyond the limit.
    pub fn release_unwanted(&self) {
        for family in self.families().values() {
            let answering = family.answering();
            let unwanted = |(version, slot): &(Version, &Arc<Slot>)| {
                !answering.contains(version) && !slot.devices_want()
            };
            family.slots().filter(unwanted).for_each(|(_, slot)| slot.try_release());
        }
        self.release_oldest();
    }

    /// Lets go of the least recently used models beyond the limit. One that is being loaded or
    /// asked at this moment keeps its place.
    fn release_oldest(&self) {
        let mut loaded: Vec<_> = self.slots().into_iter().filter(|slot| slot.is_loaded()).collect();
        loaded.sort_by_key(|slot| slot.last_use());
        let surplus = loaded.len().saturating_sub(LOADED_MAX);
        loaded.iter().take(surplus).for_each(|slot| slot.try_release());
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        let families = self.families();
        families.values().flat_map(|family| family.slots().map(|(_, slot)| slot.clone())).collect()
    }
}

impl Admitted {
    /// Holds as much memory as the request has, instead of what it might have had.
    fn hold(&mut self, request: &InferRequest) {
        let bytes: usize = request.inputs.iter().map(|input| input.data().len()).sum();
        let surplus = self.memory.num_permits().saturating_sub(bytes.div_ceil(1024));
        drop(self.memory.split(surplus));
    }
}

/// The first dimension counts items.
fn items(request: &InferRequest) -> u64 {
    let first = request.inputs.first().and_then(|input| input.shape().first());
    first.and_then(|items| u64::try_from(*items).ok()).unwrap_or(1)
}

fn respond(model: ModelName, id: String, version: Version, answer: Answer) -> InferResponse {
    let timing = Timing { queue_us: answer.queue_us, infer_us: answer.infer_us, network_us: 0 };
    let verdict = Verdict {
        placement: Placement::Cloud,
        reason: Reason::Requested,
        version,
        confidence: answer.confidence,
        risk: None,
        label: answer.label,
        timing,
        attempts: 1,
    };
    InferResponse { model, id, outputs: answer.outputs, verdict }
}

fn late() -> Problem {
    let text = "the deadline passed before the model could answer";
    Problem::new(ProblemCode::DeadlineExceeded, text).hint("allow more time")
}

fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Full { .. } => Problem::new(ProblemCode::Overloaded, refused.to_string())
            .hint("try again after retry_after_ms")
            .retry_after_ms(100),
        Refused::Stopped => Problem::new(ProblemCode::GoingAway, refused.to_string()),
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
