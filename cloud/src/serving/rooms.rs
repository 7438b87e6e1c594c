//! The memory that all models share. What is loaded, what must go for it, and what has to wait is
//! decided by `protocol::residency`, from what workers were measured to take; here it is carried out.
//!
//! Whoever was admitted for a version counts among its users, so that it cannot be taken away between
//! its load and their turn. A load goes on although its requests were given up: else a model that
//! takes longer to load than its requests wait would never answer.

use fleet::admission::ModelSlot;
use link::counter::Counter;
use protocol::residency::{CannotBegin, Residency, Standing, TooLarge};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::slot::Slot;

/// The memory of all models.
pub(super) struct Rooms {
    inner: Mutex<Inner>,
    /// A version was left, loaded or let go of.
    changed: Notify,
    loads: Counter,
    evictions: Counter,
}

struct Inner {
    policy: Residency<ModelSlot>,
    slots: BTreeMap<ModelSlot, Weak<Slot>>,
}

/// What happened to models so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moves {
    /// Versions that were loaded.
    pub loads: u64,
    /// Versions that made room for others.
    pub evictions: u64,
}

/// Somebody uses a version, or waits for it.
pub(super) struct Use {
    rooms: Arc<Rooms>,
    number: ModelSlot,
}

impl std::fmt::Debug for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Use").field(&self.number).finish()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut inner = self.rooms.inner();
        let gone = inner.policy.leave(self.number);
        self.rooms.evict(inner, &gone);
    }
}

impl Rooms {
    /// Room for so many bytes.
    pub(super) fn new(budget_bytes: u64) -> Self {
        let inner = Inner { policy: Residency::new(budget_bytes), slots: BTreeMap::new() };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            loads: Counter::default(),
            evictions: Counter::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version that is not in memory, with the best guess of what it takes.
    ///
    /// # Errors
    /// [`TooLarge`]: it stays unknown.
    pub(super) fn add(&self, number: ModelSlot, guess_bytes: u64) -> Result<(), TooLarge> {
        self.inner().policy.add(number, guess_bytes)
    }

    /// Whose version this is: from now on it may have to make room.
    pub(super) fn belongs_to(&self, number: ModelSlot, slot: &Arc<Slot>) {
        self.inner().slots.insert(number, Arc::downgrade(slot));
    }

    /// It will not be loaded again.
    pub(super) fn remove(&self, number: ModelSlot) {
        let mut inner = self.inner();
        inner.policy.remove(number);
        inner.slots.remove(&number);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Somebody uses it until the result is dropped.
    pub(super) fn enter(self: &Arc<Self>, number: ModelSlot) -> Use {
        self.inner().policy.enter(number);
        Use { rooms: self.clone(), number }
    }

    /// Ends when anything has changed since this was called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Whether there is room without unloading anything.
    pub(super) fn has_room(&self, number: ModelSlot) -> bool {
        let policy = &self.inner().policy;
        policy.size_bytes(number).is_some_and(|bytes| bytes <= policy.free_bytes())
    }

    /// Gives a version the room to be loaded; idle ones that must go for it are let go of.
    ///
    /// # Errors
    /// [`CannotBegin`].
    pub(super) fn begin(&self, number: ModelSlot) -> Result<(), CannotBegin> {
        let mut inner = self.inner();
        let gone = inner.policy.begin(number)?;
        self.evict(inner, &gone);
        Ok(())
    }

    /// A load is done, and took so much, if that is known.
    ///
    /// # Errors
    /// [`TooLarge`]: it must be let go of, and stays unknown.
    pub(super) fn loaded(&self, number: ModelSlot, bytes: Option<u64>) -> Result<(), TooLarge> {
        let mut inner = self.inner();
        let guess = inner.policy.size_bytes(number).unwrap_or(0);
        let gone = inner.policy.loaded(number, bytes.unwrap_or(guess))?;
        self.loads.add(1);
        self.evict(inner, &gone);
        Ok(())
    }

    /// A load failed.
    pub(super) fn failed(&self, number: ModelSlot) {
        self.inner().policy.failed(number);
        self.changed.notify_waiters();
    }

    /// It takes so much by now.
    pub(super) fn measured(&self, number: ModelSlot, bytes: u64) {
        let mut inner = self.inner();
        let gone = inner.policy.measured(number, bytes);
        self.evict(inner, &gone);
    }

    /// It was let go of for another reason.
    pub(super) fn unloaded(&self, number: ModelSlot) {
        self.inner().policy.unloaded(number);
        self.changed.notify_waiters();
    }

    /// Where a version stands, and what it takes; `None` for one that can never be loaded.
    pub(super) fn standing(&self, number: ModelSlot) -> Option<(Standing, u64)> {
        let policy = &self.inner().policy;
        policy.standing(number).zip(policy.size_bytes(number))
    }

    /// What all versions may take together; `None` where that never ends.
    pub(super) fn budget_bytes(&self) -> Option<u64> {
        self.inner().policy.budget_bytes()
    }

    /// What happened so far.
    pub(super) fn moves(&self) -> Moves {
        Moves { loads: self.loads.get(), evictions: self.evictions.get() }
    }

    /// Lets go of versions that are on demand already, and tells whoever waits.
    fn evict(&self, inner: MutexGuard<'_, Inner>, gone: &[ModelSlot]) {
        let slots: Vec<_> =
            gone.iter().filter_map(|number| inner.slots.get(number)?.upgrade()).collect();
        drop(inner);
        self.evictions.add(slots.len() as u64);
        for slot in &slots {
            tracing::info!(model = %slot.model, version = %slot.version,
                "unloaded: others need its memory");
            slot.release();
        }
        self.changed.notify_waiters();
    }
}
