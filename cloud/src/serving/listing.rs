//! What is said about the cloud variants.

use oip::state;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::oip::ModelDescription;
use protocol::problem::Problem;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;

use super::family::{Asker, Family, UNLOADED};
use super::rooms::Moves;
use super::slot::Slot;
use super::{ServeError, Serving};

/// Whether a version is in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residence {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// Its bundle.
    pub bundle: ContentHash,
    /// Whether requests can be answered without a load.
    pub is_loaded: bool,
    /// The same in words, with what lies between.
    pub standing: &'static str,
    /// What it takes, as it was measured last.
    pub memory_bytes: Option<u64>,
}

impl Serving {
    /// Whether there is any variant of a model.
    pub fn knows(&self, model: &ModelName) -> bool {
        self.families().contains_key(model)
    }

    /// Whether models can be run here.
    pub fn can_run(&self) -> bool {
        self.backend.is_some()
    }

    /// What a client is told about the version that it would be answered by.
    ///
    /// # Errors
    /// `NotFound`, with what is there instead.
    pub fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem> {
        let (_, slot) = self.find(Asker::Client, model, version)?;
        let description = match slot.description() {
            Some(description) => description,
            None => link::durable::aside(|| self.look_into(&slot))?,
        };
        let families = self.families();
        let family = families.get(model);
        Ok(Arc::new(match family {
            Some(family) => family.describe(description),
            None => description,
        }))
    }

    /// Describes what was not loaded yet.
    fn look_into(&self, slot: &Slot) -> Result<ModelDescription, Problem> {
        slot.describe_unloaded(&self.manifest(slot.bundle)?);
        let gone = || ServeError::Forgotten(slot.bundle).into();
        slot.description().ok_or_else(gone)
    }

    /// Every version of every model, whether it answers or not.
    pub fn index(&self) -> Vec<ModelIndex> {
        let families = self.families();
        let entries = families.iter().flat_map(|(model, family)| {
            let why_not = |version| standing(family, version);
            family.versions().map(move |version| entry(model, version, why_not(version)))
        });
        entries.collect()
    }

    /// What became of the requests to every version since it was asked for the first time, or again.
    pub fn statistics(&self) -> Vec<ModelStatistics> {
        let families = self.families();
        let all = families.values().flat_map(Family::slots);
        all.map(|slot| slot.statistics.read(&slot.model, slot.version)).collect()
    }

    /// Whether it is in memory, of every version that somebody wants; all others are on demand.
    pub fn residences(&self) -> Vec<Residence> {
        self.slots().iter().map(|slot| self.residence(slot)).collect()
    }

    fn residence(&self, slot: &Slot) -> Residence {
        let standing = self.rooms.standing(slot.number);
        Residence {
            model: slot.model.clone(),
            version: slot.version,
            bundle: slot.bundle,
            is_loaded: slot.is_loaded(),
            standing: standing.map_or("too large", |(standing, _)| standing.as_str()),
            memory_bytes: standing.map(|(_, bytes)| bytes).filter(|_| slot.is_loaded()),
        }
    }

    /// What all models may take together, in bytes; `None` where that never ends.
    pub fn memory_budget_bytes(&self) -> Option<u64> {
        self.rooms.budget_bytes()
    }

    /// What happened to models so far.
    pub fn moves(&self) -> Moves {
        self.rooms.moves()
    }

    /// How many requests wait for a session, over all models.
    pub fn waiting(&self) -> usize {
        self.slots().iter().filter_map(|slot| slot.lane()).map(|lane| lane.waiting()).sum()
    }

    /// How many variants are known, and how many of them are loaded.
    pub fn counts(&self) -> (usize, usize) {
        let families = self.families();
        let known = families.values().map(|family| family.versions().count()).sum();
        let loaded = families.values().flat_map(Family::slots).filter(|slot| slot.is_loaded());
        (known, loaded.count())
    }
}

/// Why a version does not answer clients; `None` when it does.
fn standing(family: &Family, version: Version) -> Option<String> {
    if family.is_unloaded() {
        return Some(UNLOADED.to_owned());
    }
    if !family.answering().contains(&version) {
        return Some("not among the versions that the model's policy names".to_owned());
    }
    family.slot(version)?.last_failure()
}

fn entry(model: &ModelName, version: Version, why_not: Option<String>) -> ModelIndex {
    let state = if why_not.is_none() { state::READY } else { state::UNAVAILABLE };
    ModelIndex {
        name: model.to_string(),
        version: version.to_string(),
        state: state.into(),
        reason: why_not.unwrap_or_default(),
    }
}
