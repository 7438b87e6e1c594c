//! The versions of one model: which are there, and which of them answer.
//!
//! There may be thousands, and of most nobody asks any more. So a version is no more than an entry of an
//! index ([`Known`]) until somebody asks it; then it has a [`Slot`], until it is unwanted again.

use protocol::id::{ContentHash, ModelName, Version};
use protocol::oip::ModelDescription;
use protocol::problem::{Problem, ProblemCode};
use protocol::versions::VersionPolicy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::slot::Slot;

/// Who asks for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A device asks the variant of exactly the version that it runs, whatever the policy says:
    /// the two were made for each other.
    Device,
    /// A client of the standard asks what the policy offers.
    Client,
}

/// What is kept of a version that nobody wants: its manifest is in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) bundle: ContentHash,
    /// What it takes in memory, as it was guessed or measured last.
    pub(super) size_bytes: u64,
}

/// All versions of one model.
#[derive(Debug, Default)]
pub(super) struct Family {
    versions: BTreeMap<Version, Known>,
    /// Those that somebody has asked, or may at any moment.
    slots: BTreeMap<Version, Arc<Slot>>,
    policy: VersionPolicy,
    /// What the policy names of them: every request asks.
    answering: BTreeSet<Version>,
    unloaded: bool,
}

pub(super) const UNLOADED: &str = "unloaded by an operator; it answers again after a load";

impl Family {
    /// A newly pushed version answers, also where the model was unloaded before; false where the
    /// version is known already.
    pub(super) fn add(&mut self, version: Version, known: Known) -> bool {
        self.unloaded = false;
        let is_new = !self.versions.contains_key(&version);
        self.versions.entry(version).or_insert(known);
        self.apply_policy();
        is_new
    }

    pub(super) fn set_policy(&mut self, policy: VersionPolicy) {
        self.policy = policy;
        self.apply_policy();
    }

    fn apply_policy(&mut self) {
        self.answering = self.policy.of(self.versions.keys().copied());
    }

    pub(super) fn set_unloaded(&mut self, unloaded: bool) {
        self.unloaded = unloaded;
    }

    pub(super) fn is_unloaded(&self) -> bool {
        self.unloaded
    }

    /// Every version.
    pub(super) fn versions(&self) -> impl Iterator<Item = Version> {
        self.versions.keys().copied()
    }

    /// What is known of a version.
    pub(super) fn known(&self, version: Version) -> Option<Known> {
        self.versions.get(&version).copied()
    }

    /// The versions that somebody wants.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.values()
    }

    pub(super) fn slot(&self, version: Version) -> Option<&Arc<Slot>> {
        self.slots.get(&version)
    }

    /// Somebody wants this version.
    pub(super) fn wake(&mut self, slot: Arc<Slot>) {
        self.slots.insert(slot.version, slot);
    }

    /// Versions that no policy names and no device asks.
    pub(super) fn unwanted(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let is_wanted = |slot: &Slot| self.answering.contains(&slot.version) || slot.devices_want();
        self.slots.values().filter(move |slot| !is_wanted(slot))
    }

    /// Keeps no more of this version than where to find it, unless somebody has it just now;
    /// `size_bytes` is what it takes, where that is known.
    pub(super) fn retire(
        &mut self,
        version: Version,
        size_bytes: impl FnOnce(&Slot) -> Option<u64>,
    ) -> Option<Arc<Slot>> {
        // Whoever finds it from now on must have this lock; who has found it holds a reference.
        let slot = self.slots.get(&version).filter(|slot| Arc::strong_count(slot) == 1)?;
        if let (Some(known), Some(bytes)) = (self.versions.get_mut(&version), size_bytes(slot)) {
            known.size_bytes = bytes;
        }
        self.slots.remove(&version)
    }

    /// The versions that the policy names, in order.
    pub(super) fn answering(&self) -> &BTreeSet<Version> {
        &self.answering
    }

    /// The version that a request means.
    pub(super) fn find(
        &self,
        asker: Asker,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Version, Problem> {
        if self.unloaded {
            let text = format!("the model {:?} is {UNLOADED}", model.as_str());
            return Err(Problem::new(ProblemCode::NotFound, text));
        }
        let answering = self.answering();
        let wanted = version.or(answering.last().copied());
        let offered = |version: &Version| asker == Asker::Device || answering.contains(version);
        let found = wanted.filter(offered).filter(|version| self.versions.contains_key(version));
        found.ok_or_else(|| absent(model, version, answering))
    }

    /// The description of one version, as that of the model.
    pub(super) fn describe(&self, version: ModelDescription) -> ModelDescription {
        let versions = self.answering.iter().copied().collect();
        ModelDescription { versions, policy: self.policy.clone(), ..version }
    }
}

fn absent(model: &ModelName, version: Option<Version>, answering: &BTreeSet<Version>) -> Problem {
    let text = match version {
        Some(version) => format!("the cloud has no variant of {model}@{version}"),
        None => format!("no version of {model} answers"),
    };
    let versions: Vec<_> = answering.iter().map(ToString::to_string).collect();
    let hint = match versions.as_slice() {
        [] => "see what there is: outrigger model list".to_owned(),
        _ => format!("by its policy these versions answer: {}", versions.join(", ")),
    };
    Problem::new(ProblemCode::NotFound, text).hint(hint)
}
