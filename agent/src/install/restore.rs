//! The start: what was active answers again, as it was; what is on probation and has had its chances gives
//! way before it is loaded. No cloud is asked.

use super::trial::Trial;
use super::{Installer, InstallerError, LoadError};
use crate::engine::{Engine, Why};
use crate::state::{ActiveRow, ProbationRow, StateError};
use edge::probation::Fault;
use edge::update::{Target, Update};
use protocol::id::ModelName;
use protocol::problem::chain;

/// How a model stands after the start, for the task that goes on with it.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) trial: Option<Trial>,
    /// What gave way, and why.
    pub(super) refused: Option<Update>,
}

impl Installer {
    /// Loads every active version again; where that fails, the one before it.
    pub(super) fn restore(&self) -> Result<(), InstallerError> {
        let rows = self.state.active()?;
        let candidates = self.state.candidates()?;
        let slots = rows.iter().flat_map(|r| r.previous.into_iter().chain([r.active]));
        let keep: Vec<Target> =
            slots.chain(candidates.iter().map(|(_, candidate)| *candidate)).collect();
        self.library.sweep(&keep)?;
        self.state.forget_all_but(&keep.iter().map(|target| target.bundle).collect())?;
        if !self.program_on_trial {
            self.sandbox.tidy(&keep)?; // else the program before would have to find it all out again
        }
        for (name, candidate) in &candidates {
            if self.is_cleared(candidate.bundle) {
                self.state.candidate_cleared(name)?;
            }
        }
        for row in rows {
            let name = row.model.clone();
            if let Some(restored) = self.restore_one(&row)? {
                self.restored().insert(name, restored);
            }
        }
        for (name, _) in candidates {
            self.restored().entry(name).or_default();
        }
        Ok(())
    }

    /// Says what its task must know before the cloud says anything, if there is something.
    fn restore_one(&self, row: &ActiveRow) -> Result<Option<Restored>, StateError> {
        let kept = self.state.probation(&row.model)?;
        let kept = kept.filter(|kept| kept.bundle == row.active.bundle);
        let Some(mut kept) = kept else {
            self.restore_trusted(row);
            return Ok(None);
        };
        // Before it is loaded: that may be what takes the agent down.
        self.engine.marks().want(&row.model, Why::Probation, true);
        if !self.program_on_trial {
            kept.lives = kept.lives.start(&self.boot, self.is_cleared(kept.bundle));
            self.state.keep_probation(&row.model, &kept)?;
        }
        let limit = self.update.probation().limits.starts_of(row.previous.is_some());
        let fault = kept.lives.fault(limit);
        let fault = match fault {
            Some(fault) => fault,
            None => match self.restore_on_probation(row, kept) {
                Ok(trial) => return Ok(Some(Restored { trial: Some(trial), refused: None })),
                Err(Some(fault)) => fault,
                Err(None) => {
                    self.restore_trusted(row); // it is on probation still, and may load later
                    return Ok(None);
                }
            },
        };
        let mut update = Update::new(Some(row.active));
        let (active, why) = self.give_way(&row.model, row.active, &fault)?;
        match active {
            Some(active) => {
                let row = ActiveRow { model: row.model.clone(), active, previous: None };
                self.restore_trusted(&row);
            }
            None => self.engine.remove(&row.model),
        }
        if let Err(error) = update.rolled_back(active, why) {
            tracing::error!(model = %row.model, %error, "a fault in the installer");
        }
        self.report(&row.model, &update);
        Ok(Some(Restored { trial: None, refused: Some(update) }))
    }

    /// Loads what is on probation. Nothing is held against it where it cannot be loaded just now.
    fn restore_on_probation(
        &self,
        row: &ActiveRow,
        kept: ProbationRow,
    ) -> Result<Trial, Option<Fault>> {
        let name = &row.model;
        let model = self.prove_installed(name, row.active, Engine::restore).map_err(|error| {
            let why = chain(&error);
            self.counters.install_failed(name, error.is_passing(), &why);
            (!error.is_passing()).then_some(Fault::DoesNotLoad { why })
        })?;
        let (was, is) = (kept.provider.clone(), model.provider());
        let before = was.parse().unwrap_or_default(); // the CPU has no name that is parsed
        if self.engine.is_behind(name, is, before) && row.previous.is_some() {
            return Err(Some(Fault::Provider { was, is: is.to_string() }));
        }
        model.served().has_crashed(kept.lives.crashes);
        let terms = self.update.probation();
        let trial = Trial::watch(terms, &model, kept, row.previous.is_some());
        self.engine.activate(name, model.into());
        self.watched(name, &trial);
        self.report(name, &Update::new(Some(row.active)));
        Ok(trial)
    }

    /// Loads the active version, or the one before it where that fails.
    fn restore_trusted(&self, row: &ActiveRow) {
        let mut failed = None;
        for target in [Some(row.active), row.previous].into_iter().flatten() {
            match self.load_active(&row.model, target) {
                Ok(()) => break,
                Err(error) => {
                    let (passing, why) = (error.is_passing(), chain(&error));
                    self.counters.install_failed(&row.model, passing, &why);
                    failed.get_or_insert((passing, why));
                }
            }
        }
        if let Some((passing, why)) = failed {
            self.report_failed(&row.model, row.active, passing, why);
        }
    }

    fn load_active(&self, name: &ModelName, target: Target) -> Result<(), LoadError> {
        let model = self.prove_installed(name, target, Engine::restore)?;
        self.engine.activate(name, model.into());
        self.report(name, &Update::new(Some(target)));
        Ok(())
    }

    /// What was active does not answer any more: that, and why, is the status until the cloud says
    /// what it should be.
    fn report_failed(&self, name: &ModelName, target: Target, passing: bool, why: String) {
        let mut update = Update::new(self.engine.target(name));
        match update.want(Some(target)).and_then(|_| update.fail(passing, why)) {
            Ok(_) => self.report(name, &update),
            Err(error) => tracing::error!(model = %name, %error, "a fault in the installer"),
        }
    }

    /// Writes down that a version gave way. What is active now, and the reason in words.
    pub(super) fn give_way(
        &self,
        name: &ModelName,
        bad: Target,
        fault: &Fault,
    ) -> Result<(Option<Target>, String), StateError> {
        let why = format!("rolled back: {fault}");
        let entry = self.sandbox.entry(name, bad, why.clone());
        let active = self.state.roll_back(name, &entry)?;
        self.unwatched(name);
        let to = active.map_or(0, |target| target.version.get());
        self.counters.rolled_back(name, bad.version.get(), to, &why);
        self.library.remove(bad.bundle);
        Ok((active, why))
    }
}
