//! One cloud variant that somebody wants: a version of a model, loaded or not. Of one that nobody
//! wants no more is kept than where to find it ([`super::family::Known`]).

use fleet::admission::ModelSlot;
use oip::Statistics;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::manifest::Manifest;
use protocol::oip::ModelDescription;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lane::Lane;

/// A version that no policy names stays loaded for so long after a device asked it.
const DEVICE_IDLE: Duration = Duration::from_secs(300);

/// A cloud variant that requests can ask for.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) bundle: ContentHash,
    pub(super) model: ModelName,
    pub(super) version: Version,
    /// Its number at the gate.
    pub(super) number: ModelSlot,
    lane: Mutex<Option<Arc<Lane>>>,
    /// The number of its last use, among those of all slots.
    pub(super) used: AtomicU64,
    pub(super) statistics: Statistics,
    /// With the labels once it was loaded.
    description: Mutex<Option<ModelDescription>>,
    device_asked: Mutex<Option<Instant>>,
    failure: Mutex<Option<String>>,
}

impl Slot {
    pub(super) fn new(
        bundle: ContentHash,
        (model, version): (ModelName, Version),
        number: ModelSlot,
        last_use: u64,
    ) -> Self {
        Self {
            bundle,
            model,
            version,
            number,
            lane: Mutex::default(),
            used: AtomicU64::new(last_use),
            statistics: Statistics::default(),
            description: Mutex::default(),
            device_asked: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Option<Arc<Lane>>> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is in memory from now on.
    pub(super) fn put(&self, lane: Arc<Lane>) {
        self.describe_loaded(&lane);
        *self.place() = Some(lane);
    }

    fn described(&self) -> MutexGuard<'_, Option<ModelDescription>> {
        self.description.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said about it; `None` before anybody has looked into its manifest.
    pub(super) fn description(&self) -> Option<ModelDescription> {
        let described = self.described().clone()?;
        Some(ModelDescription { takes_sequences: false, ..described }) // only agents keep state
    }

    /// What can be said before it is loaded, without the labels of its classes.
    pub(super) fn describe_unloaded(&self, manifest: &Manifest) {
        self.described().get_or_insert_with(|| ModelDescription::new(manifest, &[], 0));
    }

    fn describe_loaded(&self, model: &Lane) {
        let of = model.sessions();
        let kind = model.choice().provider.processor().instance_kind();
        let description = ModelDescription::new(of.manifest(), of.labels(), model.instances());
        *self.described() = Some(description.on(kind));
        *self.failure() = None;
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it did not load the last time, if it did not.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.failure().clone()
    }

    pub(super) fn failed(&self, text: String) {
        *self.failure() = Some(text);
    }

    /// A device asks it, or is about to.
    pub(super) fn device_asks(&self) {
        let mut asked = self.device_asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(Instant::now());
    }

    /// Whether a device asked it not long ago.
    pub(super) fn devices_want(&self) -> bool {
        let asked = self.device_asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_some_and(|at| at.elapsed() < DEVICE_IDLE)
    }

    /// The model, while it is in memory.
    pub(super) fn lane(&self) -> Option<Arc<Lane>> {
        self.place().clone()
    }

    /// Whether it is in memory.
    pub(super) fn is_loaded(&self) -> bool {
        self.place().is_some()
    }

    /// Lets go of the model. Requests in flight keep it until they end.
    pub(super) fn release(&self) {
        let gone = self.place().take();
        drop(gone); // not under the lock
    }

    pub(super) fn last_use(&self) -> u64 {
        self.used.load(Relaxed)
    }
}
