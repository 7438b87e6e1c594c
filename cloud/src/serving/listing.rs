//! What is said about the cloud variants.

use oip::state;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::oip::ModelDescription;
use protocol::problem::Problem;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;

use super::Serving;
use super::family::{Asker, Family, UNLOADED};
use super::rooms::Moves;
use super::slot::Slot;

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
        let families = self.families();
        let described = families.get(model).map(|family| family.describe(&slot));
        Ok(Arc::new(described.unwrap_or_else(|| slot.description())))
    }

    /// Every version of every model, whether it answers or not.
    pub fn index(&self) -> Vec<ModelIndex> {
        let families = self.families();
        let entries = families.iter().flat_map(|(model, family)| {
            let answering = family.answering();
            let slots = family.slots();
            slots.map(move |(version, slot)| {
                entry(model, version, standing(family, slot, answering.contains(&version)))
            })
        });
        entries.collect()
    }

    /// What became of the requests to every version.
    pub fn statistics(&self) -> Vec<ModelStatistics> {
        let families = self.families();
        let read = families.iter().flat_map(|(model, family)| {
            family.slots().map(|(version, slot)| slot.statistics.read(model, version))
        });
        read.collect()
    }

    /// Every version of every model, and whether it is in memory.
    pub fn residences(&self) -> Vec<Residence> {
        let families = self.families();
        let all = families.values().flat_map(Family::slots);
        all.map(|(version, slot)| self.residence(version, slot)).collect()
    }

    fn residence(&self, version: Version, slot: &Slot) -> Residence {
        let standing = self.rooms.standing(slot.number);
        Residence {
            model: slot.manifest.model.clone(),
            version,
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
        let slots = self.slots();
        (slots.len(), slots.iter().filter(|slot| slot.is_loaded()).count())
    }
}

/// Why a version does not answer clients; `None` when it does.
fn standing(family: &Family, slot: &Slot, is_answering: bool) -> Option<String> {
    if family.is_unloaded() {
        return Some(UNLOADED.to_owned());
    }
    if !is_answering {
        return Some("not among the versions that the model's policy names".to_owned());
    }
    slot.last_failure()
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
