//! The cloud variants: which of them are known, which are loaded, and who may ask them now.
//!
//! Versions of a model stand side by side; its policy says which of them answer clients of the
//! standard (`family`). A newer push is loaded and proven before it is known here, so new
//! requests go to it at once, and those in flight end on the version that they began with. What no
//! policy names and no device asks is let go of, and so are the least recently used models beyond
//! [`LOADED_MAX`]; a model that goes gives its memory back. Of a version that nobody wants no more is kept
//! in memory than where to find it: a model may have had thousands.
//!
//! Admission is decided on a request's header, before its tensors are read ([`door`]). A loaded model
//! is a [`lane`]: its sessions, and what runs on them when, together with what. [`Serving::admit`]
//! and [`Serving::infer`] are the only way in.

use fleet::admission::{Ask, ModelSlot};
use models::backend::Backend;
use models::bundle::BundleError;
use models::model::{ModelError, ProbeError};
use models::providers::{Choice, ChooseError};
use models::worker::Job;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::infer::{InferRequest, InferResponse, Placement, Reason, Timing, Verdict};
use protocol::manifest::{InvalidManifest, Manifest, SignedManifest};
use protocol::problem::{Problem, ProblemCode};
use protocol::residency::{CannotBegin, TooLarge};
use protocol::versions::VersionPolicy;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::access::Identity;
use crate::blobs::Blobs;
use crate::store::{Database, StoreError};

pub mod accelerators;
pub mod door;
mod family;
pub mod lane;
mod listing;
mod loading;
mod rooms;
pub mod settings;
mod slot;

use door::{Door, Place};
pub use family::Asker;
use family::{Family, Known};
use lane::{Answered, Lane, Standing};
pub use listing::Residence;
pub use loading::Newcomer;
pub use rooms::Moves;
use rooms::{Rooms, Use};
use settings::ServingSettings;
use slot::Slot;

/// Models that are loaded at a time.
pub const LOADED_MAX: usize = 8;

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
    /// The database was asked for the manifest, and failed.
    #[error("cannot look the bundle up")]
    Store(#[from] StoreError),
    /// The database has no such bundle.
    #[error("the bundle {0} is not in the database")]
    Forgotten(ContentHash),
    /// Its files are not what the manifest says.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The model does not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model does not answer its probes as expected.
    #[error(transparent)]
    Probes(#[from] ProbeError),
    /// It does not work on the CPU, which is asked before any accelerator.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// It takes more than there is for all models.
    #[error("the model needs {needs_mb} MB at least, and the memory for models is {has_mb} MB")]
    TooLarge {
        /// What it takes.
        needs_mb: u64,
        /// The budget.
        has_mb: u64,
    },
    /// The models in use take all memory.
    #[error("there is no room for the model now")]
    NoRoom(#[from] CannotBegin),
    /// It was tried a moment ago.
    #[error("{0}")]
    NotLoaded(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl From<TooLarge> for ServeError {
    fn from(TooLarge { size_bytes, budget_bytes }: TooLarge) -> Self {
        Self::TooLarge { needs_mb: size_bytes.div_ceil(MB), has_mb: budget_bytes / MB }
    }
}

const MB: u64 = 1_000_000;
/// When there may be room again.
const NO_ROOM_RETRY_MS: u32 = 1000;

/// What is known of a request when it is taken.
#[derive(Debug)]
pub struct Knock<'k> {
    /// What kind of caller asks.
    pub asker: Asker,
    /// The model.
    pub model: &'k ModelName,
    /// Its version; the one that answers by the model's name when absent.
    pub version: Option<Version>,
    /// The rest.
    pub size: Size,
}

/// How much a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its items.
    pub items: u32,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// 0 (default) and up.
    pub priority: u8,
    /// Time until the answer is of no use.
    pub remaining: Duration,
    /// Nobody waits for the answer.
    pub background: bool,
}

impl Size {
    fn ask(self, model: ModelSlot) -> Ask {
        let Self { items, bytes, priority, remaining, background } = self;
        Ask { model, items, bytes, priority, remaining: Some(remaining), background }
    }
}

/// A request that was taken. Dropping it gives its place back.
#[derive(Debug)]
pub struct Admitted {
    slot: Arc<Slot>,
    version: Version,
    /// Held from here on: a version that is exchanged meanwhile is not loaded again for it.
    lane: Option<Arc<Lane>>,
    place: Place,
    _use: Use,
}

impl Admitted {
    /// What the body says, where the header did not.
    ///
    /// # Errors
    /// There is no memory for it, or no time.
    pub fn specify(&mut self, size: Size) -> Result<(), Problem> {
        Ok(self.place.specify(&size.ask(self.slot.number))?)
    }

    /// Time to the deadline when it was admitted or specified, clamped to the caller's terms.
    pub fn remaining(&self) -> Duration {
        self.place.remaining()
    }
}

/// An answer, and the time of a session that it cost.
#[derive(Debug)]
pub struct Inferred {
    /// The answer.
    pub response: InferResponse,
    /// Its part of the run that it was part of.
    pub compute: Duration,
    /// When that run began.
    pub began: Instant,
    /// How many requests it was of.
    pub requests: u32,
}

/// All cloud variants.
pub struct Serving {
    backend: Option<Arc<dyn Backend>>,
    /// Where manifests are.
    db: Database,
    blobs: Blobs,
    folder: PathBuf,
    laid_out: AtomicU64,
    settings: ServingSettings,
    door: Arc<Door>,
    rooms: Arc<Rooms>,
    families: RwLock<BTreeMap<ModelName, Family>>,
    /// Who computes which bundle, once that was found out here.
    choices: Mutex<BTreeMap<ContentHash, Choice>>,
    uses: AtomicU64,
    slots: AtomicU32,
}

impl Serving {
    /// Serves from these manifests and blobs, laying bundles out in `folder`; without a backend every
    /// request is refused.
    pub fn new(
        backend: Option<Arc<dyn Backend>>,
        (db, blobs): (Database, Blobs),
        folder: PathBuf,
        settings: ServingSettings,
    ) -> Self {
        Self {
            backend,
            db,
            blobs,
            folder,
            laid_out: AtomicU64::new(0),
            door: Arc::new(Door::new(settings.admission.clone())),
            rooms: Arc::new(Rooms::new(settings.memory_bytes)),
            settings,
            families: RwLock::default(),
            choices: Mutex::default(),
            uses: AtomicU64::new(0),
            slots: AtomicU32::new(0),
        }
    }

    /// The gate, for its counters.
    pub fn door(&self) -> &Door {
        &self.door
    }

    fn families(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, Family>> {
        self.families.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn families_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ModelName, Family>> {
        self.families.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn choices(&self) -> MutexGuard<'_, BTreeMap<ContentHash, Choice>> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number at the gate of a variant to come.
    fn number(&self, model: &ModelName) -> ModelSlot {
        let number = ModelSlot(self.slots.fetch_add(1, Relaxed));
        self.door.add_model(number, self.settings.of(model).in_flight);
        number
    }

    /// Makes a pushed cloud variant known, with its model when that is loaded already: from now on
    /// it answers, where the policy says so.
    ///
    /// # Errors
    /// [`ServeError::Manifest`].
    pub fn add(&self, signed: &SignedManifest, loaded: Option<Newcomer>) -> Result<(), ServeError> {
        let manifest = Manifest::from_json(signed.manifest.as_bytes())?;
        let (model, version) = (manifest.model.clone(), manifest.version);
        let (bundle, size_bytes) = (signed.bundle(), loading::guess_bytes(&manifest));
        let mut families = self.families_mut();
        let family = families.entry(model.clone()).or_default();
        // One that is known already stays as it is; the newcomer goes.
        let is_new = family.add(version, Known { bundle, size_bytes });
        if let Some(newcomer) = loaded.filter(|_| is_new) {
            let (number, lane, _used) = newcomer.settle();
            let slot = Arc::new(Slot::new(bundle, (model, version), number, self.next_use()));
            lane.into_iter().for_each(|lane| slot.put(lane));
            self.rooms.belongs_to(number, &slot);
            family.wake(slot);
        }
        drop(families);
        self.release_unwanted();
        Ok(())
    }

    /// Somebody wants a version that is known.
    fn wake(&self, model: &ModelName, version: Version) -> Option<Arc<Slot>> {
        let mut families = self.families_mut();
        let family = families.get_mut(model)?;
        if let Some(slot) = family.slot(version) {
            return Some(slot.clone()); // somebody else was faster
        }
        let Known { bundle, size_bytes } = family.known(version)?;
        let number = self.number(model);
        let slot = Arc::new(Slot::new(bundle, (model.clone(), version), number, self.next_use()));
        if let Err(too_large) = self.rooms.add(number, size_bytes) {
            slot.failed(ServeError::from(too_large).to_string());
        }
        self.rooms.belongs_to(number, &slot);
        family.wake(slot.clone());
        Some(slot)
    }

    /// What is written of a bundle. Blocks.
    fn manifest(&self, bundle: ContentHash) -> Result<Manifest, ServeError> {
        let found = self.db.store().signed_manifest(bundle)?;
        let signed = found.ok_or(ServeError::Forgotten(bundle))?;
        Ok(Manifest::from_json(signed.manifest.as_bytes())?)
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

    /// Takes a request, or refuses it at once.
    ///
    /// # Errors
    /// A [`Problem`] for who asks.
    pub fn admit(&self, who: &Identity, knock: &Knock<'_>) -> Result<Admitted, Problem> {
        if self.backend.is_none() {
            return Err(ServeError::NoRuntime.into());
        }
        let (version, slot) = self.find(knock.asker, knock.model, knock.version)?;
        if knock.asker == Asker::Device {
            slot.device_asks();
        }
        let place = self.door.admit(who, &knock.size.ask(slot.number))?;
        let used = self.rooms.enter(slot.number); // first, so that it is not taken away in between
        let lane = slot.lane();
        Ok(Admitted { slot, version, lane, place, _use: used })
    }

    fn find(
        &self,
        asker: Asker,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<(Version, Arc<Slot>), Problem> {
        let absent = || {
            let text = format!("the cloud has no variant of {model}");
            Problem::new(ProblemCode::NotFound, text).hint("push it with: outrigger model push")
        };
        let (version, slot) = {
            let families = self.families();
            let family = families.get(model).ok_or_else(absent)?;
            let version = family.find(asker, model, version)?;
            (version, family.slot(version).cloned())
        };
        let slot = slot.or_else(|| self.wake(model, version)).ok_or_else(absent)?;
        Ok((version, slot))
    }

    /// Answers a request that was taken, before its deadline, or says why there is no answer.
    /// Dropping the future cancels it.
    ///
    /// # Errors
    /// A [`Problem`] for who asks.
    pub async fn infer(
        self: &Arc<Self>,
        admitted: Admitted,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<Inferred, Problem> {
        let began = Instant::now();
        if request.sequence.is_some() {
            let text = "the cloud keeps no sequences";
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("ask an agent, or send the state with each request"));
        }
        let items = items(&request);
        let run = self.run(&admitted, request, deadline);
        let result = tokio::time::timeout_at(deadline.into(), run).await;
        let result = result.unwrap_or_else(|_| Err(late()));
        match &result {
            Ok(_) => admitted.slot.statistics.answered(items.into(), began.elapsed()),
            Err(_) => admitted.slot.statistics.failed(began.elapsed()),
        }
        result
    }

    async fn run(
        self: &Arc<Self>,
        admitted: &Admitted,
        request: InferRequest,
        deadline: Instant,
    ) -> Result<Inferred, Problem> {
        let lane = self.lane(admitted).await?;
        let InferRequest { inputs, outputs, model: name, id, .. } = request;
        let Some(permit) = admitted.place.permit() else { return Err(late()) };
        let (flow, weight, priority) = (permit.flow(), permit.weight(), permit.priority());
        let background = permit.is_background();
        let standing = Standing { flow, weight, priority, background, deadline };
        let answered =
            lane.answer(Job { inputs, outputs, deadline: Some(deadline) }, standing).await?;
        let timing = timing(&answered);
        admitted.slot.statistics.ran(timing.queue_us, timing.infer_us);
        let Answered { own: compute, began, requests, .. } = answered;
        let response = respond(name, id, admitted.version, answered);
        Ok(Inferred { response, compute, began, requests })
    }

    fn set_unloaded(&self, model: &ModelName, unloaded: bool) -> Result<Vec<Arc<Slot>>, Problem> {
        let mut families = self.families_mut();
        let absent = || {
            let text = format!("the cloud has no variant of {model}");
            Problem::new(ProblemCode::NotFound, text)
        };
        let family = families.get_mut(model).ok_or_else(absent)?;
        family.set_unloaded(unloaded);
        Ok(family.slots().cloned().collect())
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.families().values().flat_map(Family::slots).cloned().collect()
    }
}

/// The first dimension counts items.
pub(crate) fn items(request: &InferRequest) -> u32 {
    let first = request.inputs.first().and_then(|input| input.shape().first());
    first.and_then(|items| u32::try_from(*items).ok()).unwrap_or(1)
}

fn timing(answered: &Answered) -> Timing {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Timing { queue_us: us(answered.queue), infer_us: us(answered.infer), network_us: 0 }
}

fn respond(model: ModelName, id: String, version: Version, answered: Answered) -> InferResponse {
    let timing = timing(&answered);
    let reply = answered.reply;
    let verdict = Verdict {
        placement: Placement::Cloud,
        reason: Reason::Requested,
        plan: None,
        version,
        confidence: reply.reading.confidence,
        risk: None,
        label: reply.reading.label,
        timing,
        attempts: 1,
        saved_bytes: 0,
    };
    InferResponse { model, id, outputs: reply.outputs, verdict }
}

/// It was not in time.
pub(crate) fn late() -> Problem {
    let text = "the deadline passed before the model could answer";
    Problem::new(ProblemCode::DeadlineExceeded, text).hint("allow more time")
}

impl From<ServeError> for Problem {
    fn from(error: ServeError) -> Self {
        let text = protocol::problem::chain(&error);
        match error {
            ServeError::NoRuntime => Problem::new(ProblemCode::NotFound, text)
                .hint("the operator can start outrigger-cloud with --runtime"),
            ServeError::Stopping => Problem::new(ProblemCode::GoingAway, text),
            ServeError::NoRoom(_) => Problem::new(ProblemCode::Overloaded, text)
                .hint("try again after retry_after_ms")
                .retry_after_ms(NO_ROOM_RETRY_MS),
            ServeError::TooLarge { .. } => Problem::new(ProblemCode::InferenceFailed, text)
                .hint("the operator can raise [runtime] memory_budget_mb"),
            _ => Problem::new(ProblemCode::InferenceFailed, text)
                .hint("the operator can look into the server's log"),
        }
    }
}
