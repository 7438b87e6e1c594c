//! How variants get into memory and out of it.
//!
//! A variant is loaded when it is pushed, before it is known; when the server starts, as many as fit;
//! and when it is asked and is not there: then idle ones make room ([`super::rooms`]), and its request
//! waits for as long as its deadline allows.

use fleet::admission::ModelSlot;
use models::bundle::Bundle;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::manifest::{MODEL_FILE, Manifest};
use protocol::problem::Problem;
use protocol::residency::{CannotBegin, Standing};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::door::Door;
use super::family::Family;
use super::lane::{self, Lane};
use super::rooms::{Rooms, Use};
use super::slot::Slot;
use super::{Admitted, Asker, LOADED_MAX, ServeError, Serving};

/// A model in memory, and what it takes, if that is known.
type Loaded = (Arc<Lane>, Option<u64>);

/// A loaded variant that is not known yet. Dropping it lets it go.
pub struct Newcomer {
    number: ModelSlot,
    door: Arc<Door>,
    rooms: Arc<Rooms>,
    lane: Option<Arc<Lane>>,
    /// It has no requests yet, and is not to be let go of for that.
    used: Option<Use>,
    is_known: bool,
}

impl Newcomer {
    /// It is known from now on.
    pub(super) fn settle(mut self) -> (ModelSlot, Option<Arc<Lane>>, Option<Use>) {
        self.is_known = true;
        (self.number, self.lane.take(), self.used.take())
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if !self.is_known {
            self.rooms.remove(self.number);
            self.door.remove_model(self.number);
        }
    }
}

/// Whether a load waits until others are left, where they take all memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waits,
    No,
}

/// What a variant takes before it was ever measured.
pub(super) fn guess_bytes(manifest: &Manifest) -> u64 {
    manifest.files.get(MODEL_FILE).map_or(0, |file| file.size_bytes)
}

impl Serving {
    /// Loads a version that devices will ask for soon, where it fits; nothing where there is no such
    /// variant.
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
                self.load_if_it_fits(&slot).await
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
        for slot in self.wanted() {
            if let Err(error) = self.load_if_it_fits(&slot).await {
                tracing::warn!(model = %slot.model, %error, "a model does not load");
            }
        }
    }

    /// What does not fit beside the others is loaded when it is asked.
    async fn load_if_it_fits(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), ServeError> {
        if slot.is_loaded() || !self.rooms.has_room(slot.number) {
            return Ok(());
        }
        self.load_slot(slot, Patience::No).await.map(drop)
    }

    /// What the policies name, the newest of each model first, and no more than may be loaded.
    fn wanted(&self) -> Vec<Arc<Slot>> {
        let mut wanted = Vec::new();
        for (model, family) in self.families().iter().filter(|(_, family)| !family.is_unloaded()) {
            let newest = family.answering().iter().rev().take(LOADED_MAX).enumerate();
            wanted.extend(newest.map(|(age, version)| (age, model.clone(), *version)));
        }
        wanted.sort_by_key(|(age, ..)| *age);
        let wake = |(_, model, version)| self.wake(&model, version);
        wanted.into_iter().take(LOADED_MAX).filter_map(wake).collect()
    }

    /// The model of an admitted request, loaded where it has gone meanwhile.
    pub(super) async fn lane(
        self: &Arc<Self>,
        admitted: &Admitted,
    ) -> Result<Arc<Lane>, ServeError> {
        match &admitted.lane {
            Some(lane) => {
                admitted.slot.used.store(self.next_use(), Relaxed);
                Ok(lane.clone())
            }
            None => self.load_slot(&admitted.slot, Patience::Waits).await,
        }
    }

    /// Loads once, however many wait for it. Whoever waited for a load that failed hears why, and does
    /// not try the same at once.
    async fn load_slot(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        patience: Patience,
    ) -> Result<Arc<Lane>, ServeError> {
        slot.used.store(self.next_use(), Relaxed);
        let mut waited_for_load = false;
        loop {
            let changed = self.rooms.changed();
            if let Some(lane) = slot.lane() {
                return Ok(lane);
            }
            let standing = self.rooms.standing(slot.number).map(|(standing, _)| standing);
            let failure = slot.last_failure();
            match (standing, failure) {
                (None, Some(why)) => return Err(ServeError::NotLoaded(why)),
                (Some(Standing::OnDemand), Some(why)) if waited_for_load => {
                    return Err(ServeError::NotLoaded(why));
                }
                _ => {}
            }
            match self.rooms.begin(slot.number) {
                Ok(()) => return self.load_apart(slot).await,
                Err(CannotBegin::NotOnDemand) => waited_for_load = true,
                Err(no_room) if patience == Patience::No => return Err(no_room.into()),
                Err(CannotBegin::NoRoom { .. }) => {}
            }
            changed.await;
        }
    }

    /// A load goes on although whoever waits for it gives up.
    async fn load_apart(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Lane>, ServeError> {
        let (this, slot) = (self.clone(), slot.clone());
        let load = tokio::spawn(async move {
            let loaded = this.load_as(slot.number, slot.bundle, None).await;
            let lane = loaded.and_then(|loaded| this.settle(&slot, loaded));
            lane.inspect_err(|error| {
                slot.failed(protocol::problem::chain(error));
                this.rooms.failed(slot.number);
            })
        });
        load.await.unwrap_or(Err(ServeError::Stopping))
    }

    fn settle(&self, slot: &Slot, (lane, bytes): Loaded) -> Result<Arc<Lane>, ServeError> {
        slot.put(lane.clone()); // before it may be let go of
        if let Err(too_large) = self.rooms.loaded(slot.number, bytes) {
            slot.release();
            return Err(too_large.into());
        }
        let unloaded = |model| self.families().get(model).is_some_and(Family::is_unloaded);
        if unloaded(&slot.model) {
            self.let_go(slot); // while it was being loaded
        }
        self.release_oldest();
        Ok(lane)
    }

    /// Lays a new bundle out, loads it, and checks its probes, so that it is warm when it is known.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind.
    pub async fn load(
        self: &Arc<Self>,
        bundle: ContentHash,
        manifest: Manifest,
    ) -> Result<Newcomer, ServeError> {
        let number = self.number(&manifest.model);
        let (door, rooms) = (self.door.clone(), self.rooms.clone());
        let mut newcomer =
            Newcomer { number, door, rooms, lane: None, used: None, is_known: false };
        self.rooms.add(number, guess_bytes(&manifest))?;
        newcomer.used = Some(self.rooms.enter(number));
        if self.backend.is_some() {
            self.rooms.begin(number)?;
        }
        let (lane, bytes) = self.load_as(number, bundle, Some(manifest)).await?;
        newcomer.lane = Some(lane);
        self.rooms.loaded(number, bytes)?;
        Ok(newcomer)
    }

    async fn load_as(
        self: &Arc<Self>,
        number: ModelSlot,
        bundle: ContentHash,
        manifest: Option<Manifest>,
    ) -> Result<Loaded, ServeError> {
        let this = self.clone();
        let load = move || this.load_blocking(number, bundle, manifest);
        tokio::task::spawn_blocking(load).await.unwrap_or(Err(ServeError::Stopping))
    }

    fn load_blocking(
        &self,
        number: ModelSlot,
        hash: ContentHash,
        manifest: Option<Manifest>,
    ) -> Result<Loaded, ServeError> {
        let backend = self.backend.clone().ok_or(ServeError::NoRuntime)?;
        let manifest = manifest.map_or_else(|| self.manifest(hash), Ok)?;
        // Not shared with the same bundle's last load, which may be about to end.
        let folder = format!("{hash}-{}", self.laid_out.fetch_add(1, Relaxed));
        let files = self.blobs.lay_out(&manifest, self.folder.join(folder));
        let files = files.map_err(ServeError::LayOut)?;
        let bundle = Bundle::open(files.folder(), manifest.clone())?;
        let settings = self.settings.of(&manifest.model).clone();
        let needs = lane::Needs {
            backend,
            settings,
            door: self.door.clone(),
            slot: number,
            accelerators: self.settings.accelerators.clone(),
            choice: self.choices().get(&hash).cloned(),
            files,
        };
        let lane = Lane::open(needs, bundle)?;
        if lane.choice().timing.is_some() {
            // Where nothing was tried, nothing is saved.
            self.choices().insert(hash, lane.choice().clone());
        }
        let bytes = lane.sessions().memory_bytes();
        Ok((lane, bytes))
    }

    /// Lets a model answer again that was unloaded; it is loaded when this returns.
    ///
    /// # Errors
    /// `NotFound`, or why its newest version does not load.
    pub async fn load_model(self: &Arc<Self>, model: &ModelName) -> Result<(), Problem> {
        self.set_unloaded(model, false)?;
        let (_, slot) = self.find(Asker::Client, model, None)?;
        self.load_slot(&slot, Patience::No).await?;
        Ok(())
    }

    /// Stops a model from answering anybody, devices too, and frees its memory once the requests
    /// in flight have ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn unload_model(&self, model: &ModelName) -> Result<(), Problem> {
        let slots = self.set_unloaded(model, true)?;
        slots.iter().for_each(|slot| self.let_go(slot));
        Ok(())
    }

    /// Lets go of a version. Requests in flight keep it until they end.
    fn let_go(&self, slot: &Slot) {
        slot.release();
        self.rooms.unloaded(slot.number);
    }

    /// Lets go of what no policy names and no device asks, and of what is beyond the limit.
    pub fn release_unwanted(&self) {
        let unwanted: Vec<_> =
            self.families().values().flat_map(Family::unwanted).cloned().collect();
        for slot in unwanted {
            self.let_go(&slot);
            let (model, version) = (slot.model.clone(), slot.version);
            drop(slot);
            self.retire(&model, version);
        }
        self.release_oldest();
    }

    /// Keeps no more of a version than where to find it. One that has requests in flight has its turn
    /// the next time.
    fn retire(&self, model: &ModelName, version: Version) {
        let size_bytes = |slot: &Slot| self.rooms.standing(slot.number).map(|(_, bytes)| bytes);
        let mut families = self.families_mut();
        let retired = families.get_mut(model).and_then(|own| own.retire(version, size_bytes));
        drop(families);
        if let Some(slot) = retired {
            self.rooms.remove(slot.number);
            self.door.remove_model(slot.number);
            self.choices().remove(&slot.bundle);
        }
    }

    /// Lets go of the least recently used models beyond the limit.
    fn release_oldest(&self) {
        let mut loaded: Vec<_> = self.slots().into_iter().filter(|slot| slot.is_loaded()).collect();
        loaded.sort_by_key(|slot| slot.last_use());
        let surplus = loaded.len().saturating_sub(LOADED_MAX);
        loaded.iter().take(surplus).for_each(|slot| self.let_go(slot));
    }

    /// Measures what every model in memory takes by now. Blocks for some milliseconds.
    pub fn measure_memory(&self) {
        for slot in self.slots() {
            let bytes = slot.lane().and_then(|lane| lane.sessions().memory_bytes());
            if let Some(bytes) = bytes {
                self.rooms.measured(slot.number, bytes);
            }
        }
    }
}
