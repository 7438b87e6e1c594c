//! The task that brings one model to its target, and back where the target does not hold.

use super::library::{Kept, LibraryError};
use super::restore::Restored;
use super::shadow::Beside;
use super::trial::Trial;
use super::{Installer, LoadError, Wanted};
use crate::engine::{ActiveModel, Engine, Why};
use crate::sandbox::NotProven;
use crate::state::{ProbationRow, StateError};
use ::link::durable::aside;
use edge::IllegalTransition;
use edge::backoff::Backoff;
use edge::probation::{Fault, Lives, Standing};
use edge::update::{Action, Event, Target, Update};
use protocol::id::{ModelName, Variant};
use protocol::manifest::Manifest;
use protocol::problem::chain;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A window or a budget may be configured anew while it is waited for.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(900);

/// A failure and whether it may pass.
struct Failure {
    passing: bool,
    why: String,
    /// When trying again makes sense, where that is known.
    not_before: Option<Duration>,
}

impl Failure {
    fn because(passing: bool, why: impl Into<String>) -> Self {
        Self { passing, why: why.into(), not_before: None }
    }

    fn passing(error: &dyn std::error::Error) -> Self {
        Self { passing: true, why: chain(error), not_before: None }
    }

    fn lasting(error: &dyn std::error::Error) -> Self {
        Self { passing: false, why: chain(error), not_before: None }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::passing(&error)
    }
}

pub(super) struct Task {
    installer: Arc<Installer>,
    name: ModelName,
    update: Update,
    backoff: Backoff,
    wanted: Option<Wanted>,
    /// The candidate, loaded where it will answer.
    warm: Option<Arc<ActiveModel>>,
    /// What a run of the active version took beside it.
    usual: Option<Duration>,
    /// The watch over what has just taken over, until [`Task::run`] takes it.
    begun: Option<Trial>,
    /// Whether the target is refused because it is in quarantine.
    quarantined: bool,
    /// When the next attempt makes sense, where that is known.
    not_before: Option<Duration>,
    /// The candidate that this agent has begun with.
    begun_with: Option<Target>,
}

impl Task {
    pub(super) fn new(installer: Arc<Installer>, name: ModelName, restored: Restored) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let quarantined = restored.refused.is_some();
        let update =
            restored.refused.unwrap_or_else(|| Update::new(installer.engine.target(&name)));
        Self {
            installer,
            name,
            update,
            backoff,
            wanted: None,
            warm: None,
            usual: None,
            begun: restored.trial,
            quarantined,
            begun_with: None,
            not_before: None,
        }
    }

    /// Carries out one action after the other, for ever. A change of what is wanted interrupts
    /// fetching, waiting and the shadow; the rest is short and runs to its end.
    pub(super) async fn run(mut self, mut receiver: watch::Receiver<Option<Wanted>>) {
        let mut action = self.resume();
        let mut released = self.installer.released.subscribe();
        let mut trial = None;
        loop {
            trial = self.begun.take().or(trial);
            self.installer.report(&self.name, &self.update);
            let (installer, name) = (self.installer.clone(), self.name.clone());
            let step = tokio::select! {
                step = self.perform(action) => step,
                changed = receiver.changed() => {
                    if changed.is_err() {
                        return; // the agent is shutting down
                    }
                    let wanted = receiver.borrow_and_update().clone();
                    self.want(wanted, action)
                }
                Ok(()) = released.changed(), if action == Action::Rest => self.try_again(action),
                fault = broken(&mut trial, &installer, &name) => {
                    self.roll_back(fault, &mut trial, action).await
                }
            };
            match step {
                Ok(next) => action = next,
                Err(error) => {
                    tracing::error!(model = %self.name, %error, "a fault in the installer");
                    return;
                }
            }
        }
    }

    /// Goes on with a candidate that was staged before a restart: no cloud needs to be there for it.
    fn resume(&mut self) -> Action {
        let found = || {
            let (target, _) = self.installer.state.candidate(&self.name).ok()??;
            let Kept { signed, cloud_variant } = self.installer.library.read(target.bundle).ok()?;
            self.installer.repository.recall(&signed).ok()?; // a root may have been adopted since
            Some(Wanted { target, signed, cloud_variant, transports: Arc::default() })
        };
        let Some(wanted) = aside(found) else { return Action::Rest };
        match self.update.found(wanted.target) {
            Ok(action) => {
                self.wanted = Some(wanted);
                action
            }
            Err(_) => Action::Rest, // the active version has just been rolled back
        }
    }

    /// Something else is wanted: the action that follows, or the present one again.
    fn want(&mut self, wanted: Option<Wanted>, now: Action) -> Result<Action, IllegalTransition> {
        if let Some(wanted) = &wanted
            && let Ok(active) = self.installer.engine.get(&self.name, None)
            && active.target() == wanted.target
        {
            active.set_cloud_variant(wanted.cloud_variant);
            active.set_transports(wanted.transports.clone());
        }
        let next = self.update.want(wanted.as_ref().map(|w| w.target))?;
        self.wanted = wanted;
        if next.is_some() {
            self.backoff.reset();
            self.quarantined = false;
            self.give_up_candidate();
        }
        Ok(next.unwrap_or(now))
    }

    /// What waited in the candidate's slot is not wanted any more.
    fn give_up_candidate(&mut self) {
        self.warm = None;
        if let Err(error) = aside(|| self.installer.state.unstage(&self.name)) {
            tracing::warn!(model = %self.name, error = chain(&error), "a candidate stays");
        }
    }

    /// Something was released from quarantine: this target, perhaps.
    fn try_again(&mut self, now: Action) -> Result<Action, IllegalTransition> {
        let target = self.update.target().filter(|_| self.quarantined);
        let Some(target) = target else { return Ok(now) };
        if self.installer.sandbox.check_quarantine(target.bundle).is_err() {
            return Ok(now);
        }
        self.backoff.reset();
        self.update.want(None)?;
        Ok(self.update.want(Some(target))?.unwrap_or(now))
    }

    async fn perform(&mut self, action: Action) -> Result<Action, IllegalTransition> {
        let result = match action {
            Action::Rest => std::future::pending().await,
            Action::Wait => {
                let delay = self.backoff.next_delay(u64::from_le_bytes(::link::entropy()));
                let known = self.not_before.take().map(|known| known.min(ASK_AGAIN_MAX));
                let delay = known.unwrap_or(delay);
                tokio::time::sleep(delay).await;
                Ok(Event::RetryDue)
            }
            Action::Fetch => self.fetch().await.map(|()| Event::Fetched),
            Action::Verify => self.verify().await.map(|()| Event::Verified),
            Action::Stage => self.stage().map(|()| Event::Staged),
            Action::WarmUp => self.warm_up().await.map(|()| Event::Warm),
            Action::Shadow => self.shadow().await.map(|()| Event::Agreed),
            Action::Switch => self.switch().map(|()| Event::Switched),
        };
        match result {
            Ok(event) => self.update.handle(event),
            Err(Failure { passing, why, not_before }) => {
                self.not_before = not_before;
                self.outlived();
                self.installer.counters.install_failed(&self.name, passing, &why);
                self.update.fail(passing, why)
            }
        }
    }

    /// The manifest, if it may be installed here, and is for this model, version and variant.
    fn manifest(&self) -> Result<(Manifest, Wanted), Failure> {
        let wanted =
            self.wanted.clone().ok_or_else(|| Failure::because(true, "nothing is wanted"))?;
        let manifest = self.installer.repository.recall(&wanted.signed);
        let manifest = manifest.map_err(|e| Failure::lasting(&e))?;
        let named = (&manifest.model, manifest.version, manifest.variant);
        if named != (&self.name, wanted.target.version, Variant::Edge) {
            let (model, version, variant) = named;
            let why = format!("refused: the signed manifest is for {model}@{version} ({variant})");
            return Err(Failure::because(false, why));
        }
        Ok((manifest, wanted))
    }

    /// Asks the repository for what is wanted. Whatever it refuses, it may be mended there.
    async fn admit(&self) -> Result<(), Failure> {
        let Some(Wanted { target, signed, .. }) = &self.wanted else { return Ok(()) };
        let admitted = self.installer.repository.admit((&self.name, target.version), signed).await;
        admitted.map_err(|error| Failure::passing(&error))
    }

    async fn fetch(&mut self) -> Result<(), Failure> {
        self.admit().await?;
        let (manifest, wanted) = self.manifest()?;
        let sandbox = &self.installer.sandbox;
        sandbox.check_quarantine(wanted.target.bundle).map_err(|e| self.not_proven(&e))?;
        if self.installer.library.folder(wanted.target.bundle).is_dir() {
            return Ok(()); // whole, and no link is needed for it
        }
        let kept = Kept { signed: wanted.signed, cloud_variant: wanted.cloud_variant };
        let before = self.installer.counters.arrived_bytes();
        let fetched = self.installer.library.fetch(&self.installer.uplink, &manifest, &kept).await;
        if self.installer.counters.arrived_bytes() > before {
            self.backoff.reset(); // a link that breaks again and again still gets there
        }
        fetched.map_err(|error| {
            let mut failure = Failure::passing(&error);
            if let LibraryError::Fetch(fetch) = &error {
                failure.not_before = fetch.not_before();
                if !fetch.hint().is_empty() {
                    failure.why = format!("{} ({})", failure.why, fetch.hint());
                }
            }
            failure
        })
    }

    async fn verify(&mut self) -> Result<(), Failure> {
        let (manifest, wanted) = self.manifest()?;
        let (installer, name, target) = (self.installer.clone(), self.name.clone(), wanted.target);
        let admit = move || {
            let folder = installer.library.folder(target.bundle);
            installer.sandbox.admit(&name, target, &folder, &manifest).map(drop)
        };
        let end = tokio::task::spawn_blocking(admit).await;
        self.checked(target, end.map(|end| end.map_err(LoadError::from)))
    }

    /// What a check of the bundle has shown.
    fn checked<T>(
        &mut self,
        target: Target,
        end: Result<Result<T, LoadError>, tokio::task::JoinError>,
    ) -> Result<T, Failure> {
        let failure = match end {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(LoadError::NotProven(error))) => self.not_proven(&error),
            Ok(Err(error)) if error.is_passing() => Failure::passing(&error),
            Ok(Err(error)) => Failure::lasting(&error),
            Err(panic) => return Err(Failure::lasting(&panic)),
        };
        if !failure.passing {
            self.give_up_candidate();
            self.installer.library.remove(target.bundle);
        }
        Err(failure)
    }

    fn not_proven(&mut self, error: &NotProven) -> Failure {
        self.quarantined = matches!(error, NotProven::Quarantined(_));
        Failure::because(error.is_passing(), chain(error))
    }

    /// From now on it goes on from here after a restart.
    fn stage(&mut self) -> Result<(), Failure> {
        let (_, wanted) = self.manifest()?;
        Ok(aside(|| self.installer.state.stage(&self.name, wanted.target))?)
    }

    /// Loads the candidate where it will answer. That it is begun with is written down first: it is loaded
    /// into this process, which it might take down.
    async fn warm_up(&mut self) -> Result<(), Failure> {
        let (manifest, wanted) = self.manifest()?;
        let Wanted { target, cloud_variant, transports, .. } = wanted;
        self.begin(target)?;
        let (installer, name) = (self.installer.clone(), self.name.clone());
        let prove = move || installer.prove(&name, target, manifest, cloud_variant, Engine::prove);
        let end = tokio::task::spawn_blocking(prove).await;
        let model = self.checked(target, end)?;
        self.usual = None;
        if let Ok(active) = self.installer.engine.get(&self.name, None) {
            let (was, is) = (active.provider(), model.provider());
            if self.installer.engine.is_behind(&self.name, is, was) {
                let fault = Fault::Provider { was: was.to_string(), is: is.to_string() };
                return Err(self.condemn(target, &fault)?);
            }
        }
        model.set_transports(transports);
        self.warm = Some(Arc::new(model));
        Ok(())
    }

    /// Once in each life of the agent, however often a step is begun anew.
    fn begin(&mut self, target: Target) -> Result<(), Failure> {
        if self.begun_with == Some(target) || self.installer.program_on_trial {
            return Ok(());
        }
        let begun = aside(|| self.installer.state.candidate_begins(&self.name))?;
        self.begun_with = Some(target);
        self.installer.engine.marks().want(&self.name, Why::Candidate, true);
        let limit = self.installer.update.probation().limits.starts.max(1);
        if begun <= limit {
            return Ok(());
        }
        Err(self.condemn(target, &Fault::Starts { starts: begun - 1 })?)
    }

    /// Whatever comes of it, the candidate has not ended the agent.
    fn outlived(&mut self) {
        if self.begun_with.take().is_none() {
            return;
        }
        self.installer.engine.marks().want(&self.name, Why::Candidate, false);
        if let Err(error) = aside(|| self.installer.state.candidate_ended(&self.name)) {
            tracing::warn!(model = %self.name, error = chain(&error), "a clean word is not kept");
        }
    }

    /// It must not answer, nor be tried again.
    fn condemn(&mut self, target: Target, fault: &Fault) -> Result<Failure, Failure> {
        let sandbox = &self.installer.sandbox;
        let condemned = aside(|| sandbox.quarantine(&self.name, target, fault.to_string()))?;
        self.warm = None;
        self.installer.library.remove(target.bundle);
        Ok(self.not_proven(&condemned))
    }

    /// Has it answer beside the active version. The first version of a model has nothing to be compared
    /// with, and the one before has been compared already.
    async fn shadow(&mut self) -> Result<(), Failure> {
        let candidate = self.warm.clone().ok_or_else(nothing_is_warm)?;
        let target = candidate.target();
        let before = aside(|| self.installer.state.previous(&self.name))?;
        let active = self.installer.engine.get(&self.name, None).ok();
        let Some(active) = active.filter(|_| before != Some(target)) else { return Ok(()) };
        let beside = Beside {
            proven_run: self
                .proven_run(&active)
                .filter(|_| active.provider() == candidate.provider()),
            active,
            candidate: &candidate,
            policy: self.installer.update.shadow(),
        };
        let shown = beside.run().await;
        let (version, fault) = (target.version.get(), shown.end.as_ref().err());
        self.installer.counters.shadowed(&self.name, version, shown.seen, fault);
        self.usual = shown.usual;
        match shown.end {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.condemn(target, &fault)?),
        }
    }

    /// What a run took when the model proved itself, on the CPU.
    fn proven_run(&self, model: &ActiveModel) -> Option<Duration> {
        let on_cpu = model.provider() == models::providers::Provider::Cpu;
        let proof = self.installer.sandbox.proof(model.target().bundle).filter(|_| on_cpu)?;
        Duration::try_from_secs_f64(proof.run_ms / 1000.0).ok()
    }

    /// Durable first, then visible: after a power cut the new version answers again.
    fn switch(&mut self) -> Result<(), Failure> {
        let model = self.warm.take().ok_or_else(nothing_is_warm)?;
        let (installer, name, target) = (&self.installer, &self.name, model.target());
        let active = installer.engine.get(name, None).ok();
        let run = |active: &Arc<ActiveModel>| active.founded_run().or(self.proven_run(active));
        let usual = self.usual.or(active.as_ref().and_then(run));
        let row = ProbationRow {
            bundle: target.bundle,
            standing: Standing::Trial,
            provider: model.provider().to_string(),
            reference: usual,
            lived: Duration::ZERO,
            lives: Lives::begin(&installer.boot),
        };
        let gone = aside(|| installer.state.switch(name, target, &row))?;
        self.begun_with = None; // what counts from now on is the probation's
        installer.engine.marks().want(name, Why::Candidate, false);
        let before = aside(|| installer.state.previous(name))?;
        let terms = installer.update.probation();
        let mut trial = aside(|| Trial::watch(terms, &model, row, before.is_some()));
        trial.before = active.filter(|active| Some(active.target()) == before);
        installer.watched(name, &trial);
        installer.engine.activate(name, model);
        installer.counters.installed(name, target.version.get());
        if let Some(gone) = gone {
            installer.library.remove(gone.bundle);
        }
        self.begun = Some(trial);
        Ok(())
    }

    /// The version before answers again. It is loaded first, where it is not in memory any more: until
    /// then the other one answers.
    async fn roll_back(
        &mut self,
        fault: Option<Fault>,
        trial: &mut Option<Trial>,
        now: Action,
    ) -> Result<Action, IllegalTransition> {
        let Some((fault, bad)) = fault.zip(self.update.active()) else { return Ok(now) };
        let Some(before) = self.before(trial.as_mut()).await else {
            trial.iter().for_each(Trial::stays);
            return Ok(now);
        };
        let gone = aside(|| self.installer.give_way(&self.name, bad, &fault));
        let (active, why) = match gone {
            Ok(gone) => gone,
            Err(error) => {
                tracing::error!(model = %self.name, error = chain(&error), "not rolled back");
                trial.iter().for_each(Trial::stays);
                return Ok(now);
            }
        };
        self.installer.engine.activate(&self.name, before);
        *trial = None;
        self.quarantined |= self.update.target().is_none();
        Ok(self.update.rolled_back(active, why)?.unwrap_or(now))
    }

    async fn before(&self, trial: Option<&mut Trial>) -> Option<Arc<ActiveModel>> {
        let (installer, name) = (self.installer.clone(), self.name.clone());
        let target = aside(|| installer.state.previous(&name)).ok()??;
        let loaded = trial.and_then(|trial| trial.before.take());
        if let Some(before) = loaded.filter(|before| before.target() == target) {
            return Some(before);
        }
        let load = move || {
            let model = installer.prove_installed(&name, target, Engine::prove);
            model.inspect_err(|e| installer.counters.install_failed(&name, true, &chain(e))).ok()
        };
        tokio::task::spawn_blocking(load).await.ok().flatten().map(Arc::new)
    }
}

/// Waits for what makes a version give way; says `None` when the trial has come further.
async fn broken(
    trial: &mut Option<Trial>,
    installer: &Installer,
    name: &ModelName,
) -> Option<Fault> {
    let Some(trial) = trial else { return std::future::pending().await };
    let fault = trial.broken((name, &installer.state, &installer.counters)).await;
    installer.watched(name, trial);
    fault
}

fn nothing_is_warm() -> Failure {
    Failure::because(true, "nothing was loaded")
}
