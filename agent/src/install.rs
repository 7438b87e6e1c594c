//! From desired state to active model: one task per model carries out what `edge::update` decides.
//! The version that is active goes on answering until the next one has proven itself, also beside it
//! ([`shadow`]); and it stays at hand until the next one has shown that it holds ([`trial`]).

mod bases;
pub(crate) mod library;
mod restore;
mod shadow;
mod task;
mod trial;

pub(crate) use bases::served;

use crate::audits::{AuditStatus, Audits};
use crate::config;
use crate::counters::Counters;
use crate::engine::{ActiveModel, Bundled, Engine, Observer, ProveError, Why};
use crate::peers::Peers;
use crate::repository::{Repository, RepositoryError};
use crate::sandbox::{NotProven, Prover, Sandbox};
use crate::serve::ModelStatus;
use crate::state::{State, StateError};
use crate::uplink::Uplink;
use crate::uplink::blob::Incoming;
use crate::uplink::gate::Gate;
use ::link::durable::aside;
use edge::probation::Standing;
use edge::update::{Phase, Target, Update};
use library::{Library, LibraryError};
use protocol::id::{ContentHash, ModelName};
use protocol::manifest::{Manifest, SignedManifest};
use protocol::problem::{Problem, ProblemCode, chain};
use protocol::transport::Allowances;
use protocol::tuf::metadata::Lifetime;
use protocol::wire::inference::repository_index_response::ModelIndex;
use protocol::wire::{DesiredModel, DesiredState, ReportedModel, ReportedState, allowances};
use restore::Restored;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use trial::Trial;

/// What one model should be.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    target: Target,
    signed: SignedManifest,
    cloud_variant: bool,
    transports: Arc<Allowances>,
}

/// At an installation or a load, or after a restart.
type Prove = fn(&Engine, &Bundled<'_>, &State) -> Result<ActiveModel, ProveError>;

/// Everything that installing needs.
pub(crate) struct Installer {
    engine: Arc<Engine>,
    uplink: Uplink,
    state: Arc<State>,
    sandbox: Arc<Sandbox>,
    /// Counts releases from quarantine, for the tasks that may try again.
    released: watch::Sender<u64>,
    library: Library,
    repository: Arc<Repository>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    audits: Arc<Audits>,
    reported: watch::Sender<ReportedState>,
    update: config::Update,
    /// Which run of the device this is.
    boot: String,
    /// The agent's own program is on trial: no model is to blame for how it ends.
    program_on_trial: bool,
    /// Who was at work when the agent ended without a word, as far as that is known.
    at_work: BTreeSet<ContentHash>,
    /// How models stand after the start, until their tasks take it.
    restored: Mutex<BTreeMap<ModelName, Restored>>,
    watched: Mutex<BTreeMap<ModelName, Watched>>,
    models: Mutex<BTreeMap<ModelName, ModelStatus>>,
}

/// An active version on probation.
struct Watched {
    standing: Standing,
    observer: Observer,
}

/// Where the installer keeps things, and how it may fetch.
pub(crate) struct Places<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) gate: Arc<Gate>,
    /// Whom to ask before the cloud.
    pub(crate) peers: Option<Arc<Peers>>,
}

/// What the installer works with.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) uplink: Uplink,
    pub(crate) counters: Arc<Counters>,
    pub(crate) audits: Arc<Audits>,
    pub(crate) state: Arc<State>,
    /// Who says what may be installed.
    pub(crate) repository: Arc<Repository>,
    pub(crate) reported: watch::Sender<ReportedState>,
    pub(crate) prover: Prover,
    /// ONNX Runtime's version, for which a proof holds.
    pub(crate) runtime: String,
    pub(crate) update: config::Update,
    /// Whether the agent's own program is on trial.
    pub(crate) program_on_trial: bool,
    /// Who was at work when the agent ended without a word, as far as that is known.
    pub(crate) at_work: BTreeSet<ContentHash>,
}

/// Why a bundle does not answer.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    NotProven(#[from] NotProven),
    #[error(transparent)]
    Prove(#[from] ProveError),
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl LoadError {
    /// Whether trying again can help.
    fn is_passing(&self) -> bool {
        match self {
            Self::NotProven(error) => error.is_passing(),
            Self::Prove(error) => error.is_passing(),
            _ => false,
        }
    }
}

impl Installer {
    /// Opens the state and brings back what was active. Blocks while models load.
    pub(crate) fn open(places: &Places<'_>, parts: Parts) -> Result<Arc<Self>, InstallerError> {
        let Parts { engine, uplink, counters, audits, state, repository, reported, update, .. } =
            parts;
        let (prover, runtime) = (parts.prover, parts.runtime);
        let (program_on_trial, at_work) = (parts.program_on_trial, parts.at_work);
        let sandbox = Arc::new(Sandbox::new(prover, runtime, state.clone(), counters.clone())?);
        let library = Library::open(
            places.state_dir,
            (places.gate.clone(), places.peers.clone()),
            counters.clone(),
        )?;
        let installer = Arc::new(Self {
            engine,
            uplink,
            state,
            sandbox,
            released: watch::Sender::new(0),
            library,
            repository,
            gate: places.gate.clone(),
            counters,
            audits,
            reported,
            update,
            boot: crate::program::boot(),
            program_on_trial,
            at_work,
            restored: Mutex::default(),
            watched: Mutex::default(),
            models: Mutex::default(),
        });
        installer.restore()?;
        Ok(installer)
    }

    /// Loads what is installed, checked as on the first day. Blocks.
    fn prove_installed(
        &self,
        name: &ModelName,
        target: Target,
        how: Prove,
    ) -> Result<ActiveModel, LoadError> {
        let kept = self.library.read(target.bundle)?;
        let manifest = self.repository.recall(&kept.signed)?;
        self.prove(name, target, manifest, kept.cloud_variant, how)
    }

    /// Has a bundle tried in a confined child, unless that was done, and loads it then. Blocks.
    fn prove(
        &self,
        name: &ModelName,
        target: Target,
        manifest: Manifest,
        cloud_variant: bool,
        how: Prove,
    ) -> Result<ActiveModel, LoadError> {
        let folder = self.library.folder(target.bundle);
        self.sandbox.admit(name, target, &folder, &manifest)?;
        let bundled = Bundled { folder: &folder, manifest, target, cloud_variant };
        Ok(how(&self.engine, &bundled, &self.state)?)
    }

    /// Lets a bundle out of quarantine, and has it tried again where it is wanted; whether it was in.
    pub(crate) fn release(&self, bundle: ContentHash) -> Result<bool, StateError> {
        let was_in = self.sandbox.release(bundle)?;
        self.released.send_modify(|count| *count += 1);
        Ok(was_in)
    }

    /// Where models are tried.
    pub(crate) fn sandbox(&self) -> Arc<Sandbox> {
        self.sandbox.clone()
    }

    /// The agent ends in order: so does a trial that is under way, and no version is to blame.
    pub(crate) fn stop(&self) {
        self.sandbox.stop();
        if let Err(error) = aside(|| self.state.ends_in_order()) {
            tracing::warn!(error = chain(&error), "the orderly end is not written down");
        }
    }

    /// Lets an unloaded model answer again.
    pub(crate) async fn load(self: &Arc<Self>, name: &ModelName) -> Result<(), Problem> {
        let Some(target) = self.engine.unloaded(name)? else { return Ok(()) };
        let installer = self.clone();
        let own = name.clone();
        let prove = move || installer.prove_installed(&own, target, Engine::prove);
        let failed = |why: String| {
            self.counters.install_failed(name, true, &why);
            Problem::new(ProblemCode::Internal, format!("{name} does not load: {why}"))
        };
        let proven = tokio::task::spawn_blocking(prove).await;
        let model = proven.map_err(|panic| failed(panic.to_string()))?;
        let model = model.map_err(|error| failed(chain(&error)))?;
        if let Some(watched) = self.all_watched().get(name) {
            model.watch(watched.observer.clone());
        }
        self.engine.reload(name, model);
        Ok(())
    }

    /// Follows the desired state for ever.
    pub(crate) async fn run(self: Arc<Self>, mut desired: watch::Receiver<Option<DesiredState>>) {
        let mut tasks: BTreeMap<ModelName, watch::Sender<Option<Wanted>>> = BTreeMap::new();
        // What is here needs no cloud to go on: trials, candidates, reasons.
        let here: Vec<ModelName> = self.restored().keys().cloned().collect();
        for name in here {
            tasks.insert(name.clone(), self.spawn(name));
        }
        while desired.changed().await.is_ok() {
            let state = desired.borrow_and_update().clone().unwrap_or_default();
            self.repository.hear(state.repository);
            for model in &state.models {
                let Some((name, wanted)) = self.read_desired(model) else { continue };
                let sender = tasks.entry(name.clone()).or_insert_with(|| self.spawn(name));
                sender.send_if_modified(|now| {
                    let changed = now.as_ref() != Some(&wanted);
                    *now = Some(wanted);
                    changed
                });
            }
        }
    }

    fn spawn(self: &Arc<Self>, name: ModelName) -> watch::Sender<Option<Wanted>> {
        let (sender, receiver) = watch::channel(None);
        let restored = self.restored().remove(&name).unwrap_or_default();
        tokio::spawn(task::Task::new(self.clone(), name, restored).run(receiver));
        sender
    }

    fn restored(&self) -> MutexGuard<'_, BTreeMap<ModelName, Restored>> {
        self.restored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_watched(&self) -> MutexGuard<'_, BTreeMap<ModelName, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another one was at work, and this one was not, when the agent ended.
    fn is_cleared(&self, bundle: ContentHash) -> bool {
        !self.at_work.is_empty() && !self.at_work.contains(&bundle)
    }

    /// The active version of a model is on probation, or is not any more.
    fn watched(&self, name: &ModelName, trial: &Trial) {
        let (standing, observer) = (trial.standing(), trial.observer());
        if standing == Standing::Trusted {
            return self.unwatched(name);
        }
        self.engine.marks().want(name, Why::Probation, true);
        self.all_watched().insert(name.clone(), Watched { standing, observer });
    }

    fn unwatched(&self, name: &ModelName) {
        self.engine.marks().want(name, Why::Probation, false);
        self.all_watched().remove(name);
    }

    /// Where a model stands, in a word: its update, or its probation while there is none.
    fn phase(&self, name: &ModelName, update: &Update) -> &'static str {
        let standing = self.all_watched().get(name).map(|watched| watched.standing);
        match standing {
            Some(standing) if update.phase() == Phase::Idle => standing.as_str(),
            _ => update.phase().as_str(),
        }
    }

    /// What the cloud wants of one model. What does not even parse is counted and left out.
    fn read_desired(&self, model: &DesiredModel) -> Option<(ModelName, Wanted)> {
        let name: ModelName = model.name.parse().ok()?;
        let parse = || {
            let signed =
                SignedManifest::from_json(&model.signed_manifest).map_err(|e| e.to_string())?;
            let version =
                model.version.try_into().map_err(|e: protocol::id::InvalidName| e.to_string())?;
            let target = Target { version, bundle: signed.bundle() };
            let transports = Arc::new(allowances(&model.transports));
            Ok(Wanted { target, signed, cloud_variant: model.cloud_variant, transports })
        };
        match parse() {
            Ok(wanted) => Some((name, wanted)),
            Err::<_, String>(why) => {
                self.counters.install_failed(&name, false, &why);
                None
            }
        }
    }

    /// Tells the cloud, and whoever asks for the status, how one model stands.
    fn report(&self, name: &ModelName, update: &Update) {
        let active = update.active();
        let profile = self.engine.get(name, None).ok().map(|model| model.profile());
        let status = ModelStatus {
            name: name.to_string(),
            active_version: active.map(|t| t.version.get()),
            active_bundle: active.map(|t| t.bundle.to_string()),
            threshold: profile.and_then(|profile| profile.threshold),
            risk: profile.and_then(|profile| profile.risk?.at_most()),
            target_version: update.target().map(|t| t.version.get()),
            phase: self.phase(name, update).into(),
            running: None,
            checks: None,
            reason: update.reason().into(),
            proof: active.and_then(|target| self.sandbox.proof(target.bundle)),
        };
        let mut models = self.models();
        models.insert(name.clone(), status);
        drop(models);
        self.report_again();
    }

    /// Tells the cloud how all models stand now.
    pub(crate) fn report_again(&self) {
        let models = self.models();
        let with_checks = |(name, status): (&ModelName, &ModelStatus)| {
            to_wire(status, self.audits.status(name).as_ref())
        };
        let reported: Vec<ReportedModel> = models.iter().map(with_checks).collect();
        drop(models);
        self.reported.send_if_modified(|now| {
            let changed = now.models != reported;
            now.models = reported;
            changed
        });
    }

    fn models(&self) -> MutexGuard<'_, BTreeMap<ModelName, ModelStatus>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where files are while they arrive.
    pub(crate) fn incoming(&self) -> Arc<Incoming> {
        self.library.incoming()
    }

    /// The models that answer.
    pub(crate) fn answering(&self) -> Vec<String> {
        let index = self.engine.index();
        let ready = index.into_iter().filter(|entry| entry.state == ::oip::state::READY);
        ready.map(|entry| entry.name).collect()
    }

    /// Whether a model answers.
    pub(crate) fn answers(&self, name: &str) -> bool {
        name.parse().is_ok_and(|name| self.engine.get(&name, None).is_ok())
    }

    /// What downloads pass.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What this device has of the repository.
    pub(crate) fn repository(&self) -> BTreeMap<String, Lifetime> {
        aside(|| self.repository.held()).unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the repository's files cannot be read");
            BTreeMap::new()
        })
    }

    /// How every model stands.
    pub(crate) fn status(&self) -> Vec<ModelStatus> {
        let mut models: Vec<ModelStatus> = self.models().values().cloned().collect();
        for model in &mut models {
            let Ok(name) = model.name.parse() else { continue };
            model.running = self.engine.running(&name);
            model.checks = self.audits.status(&name);
            let alarmed = model.checks.as_ref().is_some_and(|checks| checks.alarms > 0);
            model.risk = model.risk.filter(|_| !alarmed);
        }
        let unloaded = |entry: &&ModelIndex| entry.state != ::oip::state::READY;
        for entry in self.engine.index().iter().filter(unloaded) {
            for model in models.iter_mut().filter(|m| m.name == entry.name && m.reason.is_empty()) {
                model.reason.clone_from(&entry.reason);
            }
        }
        models
    }
}

fn to_wire(status: &ModelStatus, checks: Option<&AuditStatus>) -> ReportedModel {
    ReportedModel {
        name: status.name.clone(),
        active_version: status.active_version.unwrap_or(0),
        active_bundle: status.active_bundle.clone().unwrap_or_default(),
        target_version: status.target_version.unwrap_or(0),
        phase: status.phase.clone(),
        reason: status.reason.clone(),
        checked: checks.map_or(0, |checks| checks.checked),
        disagreed: checks.map_or(0.0, |checks| checks.disagreed),
        alarms: checks.map_or(0, |checks| checks.alarms.into()),
    }
}

/// Why the installer cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallerError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the model folder cannot be used")]
    Library(#[from] std::io::Error),
}
