//! The models that answer now. A new version takes the place of the old one in one step: requests
//! that hold the old one finish on it, and its session ends with the last of them. A model that an
//! application unloaded stays installed and answers nobody until it is loaded; one that made room in
//! memory for others answers, and is loaded again by the request that asks for it.

mod active;
mod marks;
mod observers;
mod prove;
mod shelf;
mod source;

pub(crate) use active::{ActiveModel, EdgeAnswer, Running};
pub(crate) use marks::{Marks, Why};
pub(crate) use observers::{Observer, Seen};
use oip::Statistics;
pub(crate) use prove::{Bundled, ProveError};

use crate::config::{ModelRuntimes, Runtime};
use crate::counters::Counters;
use crate::evidence::Served;
use ::link::device::Counts;
use edge::update::Target;
use models::backend::Backend;
use protocol::id::{ModelName, Version};
use protocol::problem::{Problem, ProblemCode};
use protocol::residency::Standing;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use protocol::wire::{ModelEvidence, Watch};
use shelf::Shelf;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// An installed model.
enum Slot {
    Answering(Arc<ActiveModel>),
    Unloaded { target: Target, statistics: Arc<Statistics>, served: Arc<Served> },
}

impl Slot {
    fn target(&self) -> Target {
        match self {
            Slot::Answering(model) => model.target,
            Slot::Unloaded { target, .. } => *target,
        }
    }

    fn served(&self) -> &Arc<Served> {
        match self {
            Slot::Answering(model) => &model.served,
            Slot::Unloaded { served, .. } => served,
        }
    }

    fn statistics(&self) -> &Arc<Statistics> {
        match self {
            Slot::Answering(model) => &model.statistics,
            Slot::Unloaded { statistics, .. } => statistics,
        }
    }
}

/// Loads models and holds the installed ones.
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    runtime: Runtime,
    models: ModelRuntimes,
    shelf: Arc<Shelf>,
    slots: RwLock<BTreeMap<ModelName, Slot>>,
}

/// Why an unloaded model answers nobody.
pub(crate) const UNLOADED: &str =
    "unloaded; it answers after a load, or when the agent starts anew";

/// Said in the index of a model that answers, though not at once.
const ON_DEMAND: &str = "on demand; it is loaded into memory by the next request";

impl Engine {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        runtime: Runtime,
        models: ModelRuntimes,
        counters: Arc<Counters>,
        marks: Arc<Marks>,
    ) -> Self {
        let shelf = Arc::new(Shelf::new(runtime.memory_budget_bytes(), counters, marks));
        Self { backend, runtime, models, shelf, slots: RwLock::default() }
    }

    /// Who is at work.
    pub(crate) fn marks(&self) -> &Arc<Marks> {
        &self.shelf.marks
    }

    /// The memory that all models share, if there is a limit, and what they take of it.
    pub(crate) fn memory(&self) -> (Option<u64>, u64) {
        self.shelf.budget()
    }

    /// How a model runs; nothing for one that answers nobody.
    pub(crate) fn running(&self, name: &ModelName) -> Option<Running> {
        match self.slots().get(name) {
            Some(Slot::Answering(model)) => Some(model.running()),
            _ => None,
        }
    }

    fn slots(&self) -> RwLockReadGuard<'_, BTreeMap<ModelName, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ModelName, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this one answers.
    pub(crate) fn activate(&self, name: &ModelName, model: Arc<ActiveModel>) {
        let old = self.slots_mut().insert(name.clone(), Slot::Answering(model));
        drop(old); // outside the lock: ending a session takes time
    }

    /// From now on none answers.
    pub(crate) fn remove(&self, name: &ModelName) {
        let old = self.slots_mut().remove(name);
        drop(old);
    }

    /// The installed version, whether it answers or not.
    pub(crate) fn target(&self, name: &ModelName) -> Option<Target> {
        self.slots().get(name).map(Slot::target)
    }

    /// The installed version, if it was unloaded.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] for a model that is not installed.
    pub(crate) fn unloaded(&self, name: &ModelName) -> Result<Option<Target>, Problem> {
        let slots = self.slots();
        match slots.get(name) {
            None => Err(absent(name, &slots)),
            Some(Slot::Answering(_)) => Ok(None),
            Some(Slot::Unloaded { target, .. }) => Ok(Some(*target)),
        }
    }

    /// Stops a model from answering and frees its memory.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`] for a model that is not installed.
    pub(crate) fn unload(&self, name: &ModelName) -> Result<(), Problem> {
        let mut slots = self.slots_mut();
        let Some(slot) = slots.get_mut(name) else { return Err(absent(name, &slots)) };
        let unloaded = Slot::Unloaded {
            target: slot.target(),
            statistics: slot.statistics().clone(),
            served: slot.served().clone(),
        };
        let old = std::mem::replace(slot, unloaded);
        drop(slots);
        drop(old);
        Ok(())
    }

    /// Lets a model answer again that was unloaded. Where another version was installed meanwhile,
    /// that one goes on answering.
    pub(crate) fn reload(&self, name: &ModelName, mut model: ActiveModel) {
        if let Some(slot @ Slot::Unloaded { .. }) = self.slots_mut().get_mut(name)
            && slot.target() == model.target
        {
            model.statistics = slot.statistics().clone();
            model.served = slot.served().clone();
            *slot = Slot::Answering(Arc::new(model));
        }
    }

    /// The model that answers to this name.
    ///
    /// # Errors
    /// [`ProblemCode::NotFound`], with what is there instead.
    pub(crate) fn get(
        &self,
        name: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ActiveModel>, Problem> {
        let slots = self.slots();
        match slots.get(name) {
            None => Err(absent(name, &slots)),
            Some(Slot::Unloaded { .. }) => {
                let text = format!("the model {:?} is {UNLOADED}", name.as_str());
                Err(Problem::new(ProblemCode::NotFound, text))
            }
            Some(Slot::Answering(model)) if version.is_some_and(|v| v != model.target.version) => {
                let wanted = version.map_or(0, Version::get);
                let text = format!("version {wanted} of {name} is not active here");
                let hint = format!("version {} is; leave the version out", model.target.version);
                Err(Problem::new(ProblemCode::NotFound, text).hint(hint))
            }
            Some(Slot::Answering(model)) => Ok(model.clone()),
        }
    }

    /// Whether any model answers.
    pub(crate) fn is_ready(&self) -> bool {
        self.slots().values().any(|slot| matches!(slot, Slot::Answering(_)))
    }

    /// Every installed model.
    pub(crate) fn index(&self) -> Vec<ModelIndex> {
        let entry = |(name, slot): (&ModelName, &Slot)| {
            let (state, reason) = match slot {
                Slot::Answering(model) => match model.running().memory.as_str() {
                    memory if memory == Standing::Resident.as_str() => (oip::state::READY, ""),
                    _ => (oip::state::READY, ON_DEMAND),
                },
                Slot::Unloaded { .. } => (oip::state::UNAVAILABLE, UNLOADED),
            };
            ModelIndex {
                name: name.to_string(),
                version: slot.target().version.to_string(),
                state: state.into(),
                reason: reason.into(),
            }
        };
        self.slots().iter().map(entry).collect()
    }

    /// What became of the requests to every installed model.
    pub(crate) fn statistics(&self) -> Vec<ModelStatistics> {
        let read =
            |(name, slot): (&ModelName, &Slot)| slot.statistics().read(name, slot.target().version);
        self.slots().iter().map(read).collect()
    }
}

impl Counts for Engine {
    fn look_closely(&self, watch: Option<&Watch>) {
        for (name, slot) in self.slots().iter() {
            let own = watch.filter(|w| w.models.iter().any(|model| model == name.as_str()));
            slot.served().check_one_of(own.map_or(0, |watch| watch.calls_per_check));
        }
    }

    fn rows(&self, models: &[String]) -> Vec<ModelEvidence> {
        let slots = self.slots();
        let row = |name: &String| {
            let (name, slot) = slots.get_key_value(&name.parse().ok()?)?;
            let Slot::Answering(model) = slot else { return None };
            let provider = model.provider().as_str();
            Some(model.served.row(name, model.target.version, provider))
        };
        models.iter().filter_map(row).collect()
    }
}

fn absent(name: &ModelName, slots: &BTreeMap<ModelName, Slot>) -> Problem {
    let known: Vec<_> = slots.keys().map(ModelName::as_str).collect();
    let known = if known.is_empty() { "none yet".into() } else { known.join(", ") };
    let text = format!("no model {:?} on this device", name.as_str());
    Problem::new(ProblemCode::NotFound, text).hint(format!("models here: {known}"))
}

#[cfg(test)]
mod tests;
