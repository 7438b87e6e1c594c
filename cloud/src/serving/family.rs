//! The versions of one model: which are there, and which of them answer.

use protocol::id::{ModelName, Version};
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

/// All versions of one model.
#[derive(Debug, Default)]
pub(super) struct Family {
    versions: BTreeMap<Version, Arc<Slot>>,
    policy: VersionPolicy,
    /// What the policy names of them: every request asks.
    answering: BTreeSet<Version>,
    unloaded: bool,
}

pub(super) const UNLOADED: &str = "unloaded by an operator; it answers again after a load";

impl Family {
    /// A newly pushed version answers, also where the model was unloaded before; false where the
    /// version is known already.
    pub(super) fn add(&mut self, version: Version, slot: Arc<Slot>) -> bool {
        self.unloaded = false;
        let is_new = !self.versions.contains_key(&version);
        self.versions.entry(version).or_insert(slot);
        self.apply_policy();
        is_new
    }

    pub(super) fn set_policy(&mut self, policy: VersionPolicy) {
        self.policy = policy;
        self.apply_policy();
    }

    fn apply_policy(&mut self) {
        let all: BTreeSet<_> = self.versions.keys().copied().collect();
        let named = |version: &Version| self.policy.includes(*version, &all);
        self.answering = all.iter().copied().filter(named).collect();
    }

    pub(super) fn set_unloaded(&mut self, unloaded: bool) {
        self.unloaded = unloaded;
    }

    pub(super) fn is_unloaded(&self) -> bool {
        self.unloaded
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Version, &Arc<Slot>)> {
        self.versions.iter().map(|(version, slot)| (*version, slot))
    }

    /// The versions that the policy names, in order.
    pub(super) fn answering(&self) -> &BTreeSet<Version> {
        &self.answering
    }

    /// The slot that a request means.
    pub(super) fn find(
        &self,
        asker: Asker,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<(Version, &Arc<Slot>), Problem> {
        if self.unloaded {
            let text = format!("the model {:?} is {UNLOADED}", model.as_str());
            return Err(Problem::new(ProblemCode::NotFound, text));
        }
        let answering = self.answering();
        let wanted = version.or(answering.last().copied());
        let offered = |version: &Version| asker == Asker::Device || answering.contains(version);
        let found = wanted.filter(offered).and_then(|v| Some((v, self.versions.get(&v)?)));
        found.ok_or_else(|| absent(model, version, answering))
    }

    pub(super) fn describe(&self, slot: &Slot) -> ModelDescription {
        let versions = self.answering.iter().copied().collect();
        ModelDescription { versions, policy: self.policy.clone(), ..slot.description() }
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
