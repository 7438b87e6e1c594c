//! The cloud variants: which of them are known, which are loaded, and who may ask them now.
//!
//! Versions of a model stand side by side; its policy says which of them answer clients of the
//! standard (`family`). A newer push is loaded and proven before it is known here, so new
//! requests go to it at once, and those in flight end on the version that they began with. What no
//! policy names and no device asks is let go of, and so are the least recently used models beyond
//! [`LOADED_MAX`]; a model that goes gives its memory back.
//!
//! Admission is decided on a request's header, before its tensors are read ([`door`]). A loaded model
//! is a [`lane`]: its sessions, and what runs on them when, together with what. [`Serving::admit`]
//! and [`Serving::infer`] are the only way in.

use fleet::admission::{Ask, ModelSlot};
use models::backend::Backend;
use models::bundle::{Bundle, BundleError};
use models::model::{ModelError, ProbeError};
use models::providers::{Choice, ChooseError};
use models::worker::Job;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::infer::{InferRequest, InferResponse, Placement, Reason, Timing, Verdict};
use protocol::manifest::{InvalidManifest, Manifest, SignedManifest};
use protocol::problem::{Problem, ProblemCode};
use protocol::versions::VersionPolicy;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use crate::access::Identity;
use crate::blobs::Blobs;

pub mod accelerators;
pub mod door;
mod family;
pub mod lane;
mod listing;
mod memory;
pub mod settings;
mod slot;

use door::{Door, Place};
pub use family::Asker;
use family::Family;
use lane::{Answered, Lane, Standing};
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
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

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
}

impl Size {
    fn ask(self, model: ModelSlot) -> Ask {
        let Self { items, bytes, priority, remaining } = self;
        Ask { model, items, bytes, priority, remaining: Some(remaining) }
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
    blobs: Blobs,
    folder: PathBuf,
    settings: ServingSettings,
    door: Arc<Door>,
    families: RwLock<BTreeMap<ModelName, Family>>,
    /// Who computes which bundle, once that was found out here.
    choices: Mutex<BTreeMap<ContentHash, Choice>>,
    uses: AtomicU64,
    slots: AtomicU32,
}

impl Serving {
    /// Serves from these blobs, laying bundles out in `folder`; without a backend every request is
    /// refused.
    pub fn new(
        backend: Option<Arc<dyn Backend>>,
        blobs: Blobs,
        folder: PathBuf,
        settings: ServingSettings,
    ) -> Self {
        Self {
            backend,
            blobs,
            folder,
            door: Arc::new(Door::new(settings.admission.clone())),
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
    pub fn add(
        &self,
        signed: &SignedManifest,
        loaded: Option<Arc<Lane>>,
    ) -> Result<(), ServeError> {
        let manifest = Manifest::from_json(signed.manifest.as_bytes())?;
        let (model, version) = (manifest.model.clone(), manifest.version);
        let number = loaded.as_ref().map_or_else(|| self.number(&model), |lane| lane.number());
        let slot = Slot::new(signed.bundle(), manifest, number, loaded);
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
        let lane = slot.lane();
        Ok(Admitted { slot, version, lane, place })
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
        let standing = Standing { flow, weight, priority, deadline };
        let answered =
            lane.answer(Job { inputs, outputs, deadline: Some(deadline) }, standing).await?;
        let timing = timing(&answered);
        admitted.slot.statistics.ran(timing.queue_us, timing.infer_us);
        let Answered { own: compute, began, requests, .. } = answered;
        let response = respond(name, id, admitted.version, answered);
        Ok(Inferred { response, compute, began, requests })
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

    async fn lane(self: &Arc<Self>, admitted: &Admitted) -> Result<Arc<Lane>, ServeError> {
        match &admitted.lane {
            Some(lane) => {
                admitted.slot.used.store(self.next_use(), Relaxed);
                Ok(lane.clone())
            }
            None => self.load_slot(&admitted.slot).await,
        }
    }

    async fn load_slot(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Lane>, ServeError> {
        slot.used.store(self.next_use(), Relaxed);
        let mut loaded = slot.loaded.lock().await;
        if let Some(model) = &*loaded {
            return Ok(model.clone());
        }
        let model = self.load_as(slot.number, slot.bundle, slot.manifest.clone()).await;
        let model = model.inspect_err(|error| slot.failed(protocol::problem::chain(error)))?;
        slot.describe_loaded(&model);
        *loaded = Some(model.clone());
        drop(loaded);
        self.release_oldest();
        Ok(model)
    }

    /// Lays a new bundle out, loads it, and checks its probes, so that it is warm when it is known.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind.
    pub async fn load(
        self: &Arc<Self>,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<Lane>, ServeError> {
        let number = self.number(&manifest.model);
        let loaded = self.load_as(number, bundle, manifest).await;
        loaded.inspect_err(|_| self.door.remove_model(number))
    }

    async fn load_as(
        self: &Arc<Self>,
        number: ModelSlot,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<Lane>, ServeError> {
        let this = self.clone();
        let load = move || this.load_blocking(number, bundle, manifest);
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(ServeError::Stopping))
    }

    fn load_blocking(
        &self,
        number: ModelSlot,
        hash: ContentHash,
        manifest: Manifest,
    ) -> Result<Arc<Lane>, ServeError> {
        let backend = self.backend.clone().ok_or(ServeError::NoRuntime)?;
        let folder = self.folder.join(hash.to_string());
        self.blobs.lay_out(&manifest, &folder).map_err(ServeError::LayOut)?;
        let settings = self.settings.of(&manifest.model).clone();
        let needs = lane::Needs {
            backend,
            settings,
            door: self.door.clone(),
            slot: number,
            accelerators: self.settings.accelerators.clone(),
            choice: self.choices().get(&hash).cloned(),
        };
        let opened = Bundle::open(&folder, manifest).map_err(ServeError::from);
        let result = opened.and_then(|bundle| Lane::open(needs, bundle));
        match &result {
            // Where nothing was tried, nothing is saved.
            Ok(lane) if lane.choice().timing.is_some() => {
                self.choices().insert(hash, lane.choice().clone());
            }
            Ok(_) => {}
            Err(_) => drop(std::fs::remove_dir_all(&folder)), // laid out anew at the next attempt
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
            family.slots().filter(unwanted).for_each(|(_, slot)| slot.retire());
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
    };
    InferResponse { model, id, outputs: reply.outputs, verdict }
}

fn late() -> Problem {
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
            _ => Problem::new(ProblemCode::InferenceFailed, text)
                .hint("the operator can look into the server's log"),
        }
    }
}
