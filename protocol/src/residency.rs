//! Which models are in memory, under a budget: agent and cloud serve by the same rule.
//!
//! A model in memory (`resident`) answers at once; one that is not (`on demand`) is loaded when a
//! request comes for it. When the sum would exceed the budget, the least recently used models that
//! nobody is using make room. A model that is being used, or loaded, is never unloaded.
//!
//! ```text
//!            begin                 loaded
//! on demand -------> loading -----------------> resident
//!     ^                 | failed                   |
//!     +-----------------+--------------------------+ another model needs the room
//! ```
//!
//! Sizes are bytes that were measured, or the best guess before the first load. Where a load turns
//! out larger than the guess while all others are in use, the sum stands above the budget until the
//! next of them is left.

use std::collections::BTreeMap;

/// Whether a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is loaded when a request comes.
    OnDemand,
    /// It has its room, and is on its way.
    Loading,
    /// It answers at once.
    Resident,
}

impl Standing {
    /// The standing in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on demand",
            Self::Loading => "loading",
            Self::Resident => "resident",
        }
    }
}

/// A model that can never be in memory here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model takes {size_bytes} bytes of memory; the budget of all models is {budget_bytes}")]
pub struct TooLarge {
    /// What it takes.
    pub size_bytes: u64,
    /// What there is.
    pub budget_bytes: u64,
}

/// Why a load cannot begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotBegin {
    /// The models in use leave no room.
    #[error("the models that are in use leave {free_bytes} bytes; it takes {size_bytes}")]
    NoRoom {
        /// What it takes.
        size_bytes: u64,
        /// What would be free with all idle models unloaded.
        free_bytes: u64,
    },
    /// It is in memory or on its way, or is not known at all.
    #[error("the model is not on demand")]
    NotOnDemand,
}

#[derive(Debug)]
struct Entry {
    size_bytes: u64,
    standing: Standing,
    uses: u32,
    last_used: u64,
}

impl Entry {
    fn takes_room(&self) -> bool {
        self.standing != Standing::OnDemand
    }

    fn may_go(&self) -> bool {
        self.standing == Standing::Resident && self.uses == 0
    }
}

/// The models of a device or node, and the room that they share.
#[derive(Debug)]
pub struct Residency<K> {
    budget_bytes: u64,
    entries: BTreeMap<K, Entry>,
    clock: u64,
}

impl<K: Ord + Copy> Residency<K> {
    /// No models yet; 0 for a budget that never ends.
    pub fn new(budget_bytes: u64) -> Self {
        let budget_bytes = if budget_bytes == 0 { u64::MAX } else { budget_bytes };
        Self { budget_bytes, entries: BTreeMap::new(), clock: 0 }
    }

    /// Makes a model known, on demand.
    ///
    /// # Errors
    /// [`TooLarge`]: it stays unknown.
    pub fn add(&mut self, key: K, size_bytes: u64) -> Result<(), TooLarge> {
        self.fits(size_bytes)?;
        let entry =
            Entry { size_bytes, standing: Standing::OnDemand, uses: 0, last_used: self.tick() };
        self.entries.insert(key, entry);
        Ok(())
    }

    fn fits(&self, size_bytes: u64) -> Result<(), TooLarge> {
        let budget_bytes = self.budget_bytes;
        let fits = size_bytes <= budget_bytes;
        fits.then_some(()).ok_or(TooLarge { size_bytes, budget_bytes })
    }

    /// Forgets a model, whatever it does.
    pub fn remove(&mut self, key: K) {
        self.entries.remove(&key);
    }

    /// Somebody uses the model from now on, or waits for it.
    pub fn enter(&mut self, key: K) {
        let now = self.tick();
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.uses += 1;
            entry.last_used = now;
        }
    }

    /// One user less. The models that must be unloaded now, because a load turned out larger than
    /// expected, are on demand already.
    #[must_use = "these must be unloaded"]
    pub fn leave(&mut self, key: K) -> Vec<K> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.uses = entry.uses.saturating_sub(1);
        }
        self.free_down_to(self.budget_bytes)
    }

    /// Gives a model the room to be loaded. The models that must be unloaded before are on demand
    /// already; they are as few as the order of their last use allows.
    ///
    /// # Errors
    /// [`CannotBegin`]: nothing changed.
    pub fn begin(&mut self, key: K) -> Result<Vec<K>, CannotBegin> {
        let entry = self.entries.get(&key).filter(|e| e.standing == Standing::OnDemand);
        let size_bytes = entry.ok_or(CannotBegin::NotOnDemand)?.size_bytes;
        let held = self.sum(|e| e.takes_room() && !e.may_go());
        let free_bytes = self.budget_bytes.saturating_sub(held);
        if size_bytes > free_bytes {
            return Err(CannotBegin::NoRoom { size_bytes, free_bytes });
        }
        let gone = self.free_down_to(self.budget_bytes - size_bytes);
        self.set(key, Standing::Loading);
        Ok(gone)
    }

    /// A load is done, and took so much. What must be unloaded for it is on demand already.
    ///
    /// # Errors
    /// [`TooLarge`]: the model is forgotten.
    pub fn loaded(&mut self, key: K, size_bytes: u64) -> Result<Vec<K>, TooLarge> {
        if let Err(too_large) = self.fits(size_bytes) {
            self.remove(key);
            return Err(too_large);
        }
        let now = self.tick();
        if let Some(entry) = self.entries.get_mut(&key) {
            // Still loading for the moment, so that it does not make room for itself.
            entry.size_bytes = size_bytes;
            entry.last_used = now;
        }
        let gone = self.free_down_to(self.budget_bytes);
        self.set(key, Standing::Resident);
        Ok(gone)
    }

    /// A load failed.
    pub fn failed(&mut self, key: K) {
        self.set(key, Standing::OnDemand);
    }

    /// A model in memory takes another amount by now. What must be unloaded for that is on demand
    /// already; the model itself may be among it.
    #[must_use = "these must be unloaded"]
    pub fn measured(&mut self, key: K, size_bytes: u64) -> Vec<K> {
        if let Some(entry) = self.entries.get_mut(&key) {
            // What it takes alone must stay within the budget, or it could never be loaded again.
            entry.size_bytes = size_bytes.min(self.budget_bytes);
        }
        self.free_down_to(self.budget_bytes)
    }

    /// A model in memory was unloaded for a reason of its owner's.
    pub fn unloaded(&mut self, key: K) {
        if self.standing(key) == Some(Standing::Resident) {
            self.set(key, Standing::OnDemand);
        }
    }

    /// Whether a model is in memory; `None` for one that is not known.
    pub fn standing(&self, key: K) -> Option<Standing> {
        self.entries.get(&key).map(|entry| entry.standing)
    }

    /// What a model takes, or is expected to.
    pub fn size_bytes(&self, key: K) -> Option<u64> {
        self.entries.get(&key).map(|entry| entry.size_bytes)
    }

    /// How many use a model or wait for it.
    pub fn uses(&self, key: K) -> u32 {
        self.entries.get(&key).map_or(0, |entry| entry.uses)
    }

    /// What the models take that are in memory or on their way.
    pub fn resident_bytes(&self) -> u64 {
        self.sum(Entry::takes_room)
    }

    /// What is left of the budget without unloading anything.
    pub fn free_bytes(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.resident_bytes())
    }

    /// The budget; `None` where it never ends.
    pub fn budget_bytes(&self) -> Option<u64> {
        Some(self.budget_bytes).filter(|bytes| *bytes != u64::MAX)
    }

    fn free_down_to(&mut self, target_bytes: u64) -> Vec<K> {
        let mut gone = Vec::new();
        while self.resident_bytes() > target_bytes {
            let idle = self.entries.iter_mut().filter(|(_, entry)| entry.may_go());
            let Some((key, entry)) = idle.min_by_key(|(_, entry)| entry.last_used) else { break };
            entry.standing = Standing::OnDemand;
            gone.push(*key);
        }
        gone
    }

    fn sum(&self, which: impl Fn(&Entry) -> bool) -> u64 {
        let sizes = self.entries.values().filter(|e| which(e)).map(|e| e.size_bytes);
        sizes.fold(0, u64::saturating_add)
    }

    fn set(&mut self, key: K, standing: Standing) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.standing = standing;
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests;
