//! From the release that the cloud wants here to a program that lies ready. What admits it is what admits models:
//! an operator's signature, or targets and director both where there is a repository; its bytes come as files of
//! models do, from where they broke off, as a delta from the program that runs, within budgets and windows.

use super::slots::{SlotError, hash};
use super::{Own, own_mark, why};
use crate::counters::Counters;
use crate::install::Installer;
use crate::repository::{Repository, RepositoryError};
use crate::uplink::Uplink;
use crate::uplink::blob::{Base, FetchError, Incoming};
use ::link::durable::aside;
use edge::IllegalTransition;
use edge::backoff::Backoff;
use edge::probation::Lives;
use edge::takeover::{Candidate, Program, Stage, Takeover, Terms, Wanted, Wish};
use protocol::problem::chain;
use protocol::release::{InvalidRelease, Mark, Release, SignedRelease};
use protocol::wire::{DesiredState, ReportedAgent, ReportedState};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A window or a budget may be configured anew while it is waited for.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(900);

/// Why a release does not lie ready.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error(transparent)]
    Release(#[from] InvalidRelease),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("there is no build for this machine ({own}), only for {others}")]
    NoBuild { own: String, others: String },
    #[error("{0}")]
    Refused(String),
    #[error("this device's owner updates the agent ([update] program = false)")]
    NotAllowed,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the program {}", chain(.0))]
    Slot(SlotError),
    #[error("the installed program cannot be read")]
    Installed(#[source] io::Error),
    #[error(transparent)]
    Record(#[from] super::record::RecordError),
    #[error(transparent)]
    Fault(#[from] IllegalTransition),
}

impl From<SlotError> for ProgramError {
    fn from(error: SlotError) -> Self {
        Self::Slot(error)
    }
}

impl ProgramError {
    /// Whether the same may succeed later. Whatever a repository refuses, it may be mended there.
    fn is_passing(&self) -> bool {
        match self {
            Self::Release(_)
            | Self::NoBuild { .. }
            | Self::Refused(_)
            | Self::NotAllowed
            | Self::Fault(_) => false,
            Self::Slot(error) => error.is_passing(),
            _ => true,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Slot(error) => error.hint(),
            Self::Fetch(error) => error.hint(),
            _ => "",
        }
    }

    fn not_before(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) => error.not_before(),
            _ => None,
        }
    }
}

/// What the task works with.
pub(crate) struct Parts {
    pub(crate) own: Arc<Own>,
    pub(crate) uplink: Uplink,
    pub(crate) repository: Arc<Repository>,
    pub(crate) installer: Arc<Installer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) reported: watch::Sender<ReportedState>,
    /// Where files of bundles arrive too.
    pub(crate) incoming: Arc<Incoming>,
    /// Whether this device's owner lets the cloud update the agent.
    pub(crate) allowed: bool,
    pub(crate) terms: Terms,
    /// When this program began.
    pub(crate) began: Instant,
}

/// Follows the releases that are wanted here.
pub(crate) struct Task {
    parts: Parts,
    /// The installed program, once it was asked for.
    installed: Option<Program>,
}

/// What is wanted here.
struct Target {
    signed: SignedRelease,
    release: Release,
}

impl Target {
    fn program(&self) -> Program {
        Program { version: self.release.version, sha256: self.release.program.sha256 }
    }
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, installed: None }
    }

    /// Follows the desired state for ever.
    pub(crate) async fn run(mut self, mut desired: watch::Receiver<Option<DesiredState>>) {
        let now = self.parts.own.now();
        self.report("", now.stage.as_str(), &why(&now));
        loop {
            let releases = desired.borrow_and_update().as_ref().map(|state| state.releases.clone());
            let Some(releases) = releases else {
                if desired.changed().await.is_err() {
                    return; // the agent is shutting down
                }
                continue;
            };
            let changed = async {
                loop {
                    if desired.changed().await.is_err() {
                        return false;
                    }
                    let now = desired.borrow_and_update();
                    if now.as_ref().is_some_and(|state| state.releases != releases) {
                        return true;
                    }
                }
            };
            tokio::select! {
                is_changed = changed => if !is_changed { return },
                () = self.follow(&releases) => {}
            }
        }
    }

    /// Does what can be done about these releases, and then waits for ever: for others.
    async fn follow(&mut self, releases: &[bytes::Bytes]) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        loop {
            let wanted = wanted_text(releases);
            let before = self.parts.counters.arrived_bytes();
            let error = match self.attempt(releases).await {
                Ok(()) => return self.rest(&wanted).await,
                Err(error) => error,
            };
            let why = match error.hint() {
                "" => chain(&error),
                hint => format!("{} ({hint})", chain(&error)),
            };
            self.parts.counters.program_failed(&wanted, error.is_passing(), &why);
            if !error.is_passing() {
                self.report(&wanted, "refused", &why);
                return std::future::pending().await;
            }
            self.report(&wanted, "waiting", &why);
            if self.parts.counters.arrived_bytes() > before {
                backoff.reset(); // a link that breaks again and again still gets there
            }
            let delay = backoff.next_delay(u64::from_le_bytes(::link::entropy()));
            let known = error.not_before().map(|known| known.min(ASK_AGAIN_MAX));
            tokio::time::sleep(known.unwrap_or(delay)).await;
        }
    }

    /// Nothing is left to do but to say how the candidate stands, as it changes.
    async fn rest(&self, wanted: &str) {
        let mut changes = self.parts.own.takeover.subscribe();
        loop {
            let now = changes.borrow_and_update().clone();
            let wanted = if now.stage == Stage::Settled { "" } else { wanted };
            self.report(wanted, now.stage.as_str(), &why(&now));
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn attempt(&mut self, releases: &[bytes::Bytes]) -> Result<(), ProgramError> {
        let target = choose(releases)?;
        // The cloud has been heard: then one that did not reach it in time was to blame, or nobody.
        let after_s = self.parts.began.elapsed().as_secs();
        let is_wanted = target.is_some();
        aside(|| {
            self.parts.own.change(|takeover| match is_wanted {
                true => takeover.reached(after_s),
                false => takeover.forgive(),
            })
        })?;
        loop {
            match (self.wish(target.as_ref()).await?, &target) {
                (Wish::Get, Some(target)) => return self.get(target).await,
                (Wish::Refuse(why), _) => return Err(ProgramError::Refused(why)),
                (Wish::Rest | Wish::Get, _) => return Ok(()),
                (Wish::Await, _) => {
                    let mut changes = self.parts.own.takeover.subscribe();
                    // It ends only with the agent.
                    let _ = changes.wait_for(|takeover| takeover.stage != Stage::Trial).await;
                }
                (Wish::Settle, _) => self.change(Takeover::held)??,
                (Wish::Withdraw, _) => {
                    let runs = self.parts.own.now().running().cloned();
                    self.change(Takeover::withdraw)??;
                    if self.parts.own.now().running() != runs.as_ref() {
                        self.parts.own.restart();
                        return Ok(());
                    }
                }
                (Wish::UseInstalled, _) => {
                    self.change(Takeover::use_installed)?;
                    self.parts.own.restart();
                    return Ok(());
                }
            }
        }
    }

    async fn wish(&mut self, target: Option<&Target>) -> Result<Wish, ProgramError> {
        let Some(target) = target else { return Ok(self.parts.own.now().wish(None)) };
        let (program, installed) = (&target.program(), &self.installed().await?);
        Ok(self.parts.own.now().wish(Some(Wanted { program, installed })))
    }

    /// Changes the record, and removes what is not kept by it any more.
    fn change<T>(&self, change: impl FnOnce(&mut Takeover) -> T) -> Result<T, ProgramError> {
        let changed = aside(|| self.parts.own.change(change))?;
        aside(|| self.parts.own.sweep());
        Ok(changed)
    }

    /// The installed program, as it is; asked once, for it is read for that.
    async fn installed(&mut self) -> Result<Program, ProgramError> {
        if let Some(installed) = &self.installed {
            return Ok(installed.clone());
        }
        let launcher = self.parts.own.begun.launcher.clone();
        let read = move || hash(&mut File::open(launcher)?);
        let sha256 = tokio::task::spawn_blocking(read).await.map_err(io::Error::other);
        let sha256 = sha256.and_then(|hash| hash).map_err(ProgramError::Installed)?;
        let version = self.parts.own.begun.installed;
        Ok(self.installed.insert(Program { version, sha256 }).clone())
    }

    /// Fetches, verifies, tries out and stages a program, and begins anew with it.
    async fn get(&self, target: &Target) -> Result<(), ProgramError> {
        let Parts { own, repository, .. } = &self.parts;
        if !self.parts.allowed {
            return Err(ProgramError::NotAllowed);
        }
        let (program, version) = (target.program(), target.release.version.to_string());
        aside(|| own.slots.check())?;
        self.report(&version, "fetching", "");
        repository.admit_file(&target.release.path(), target.signed.release.as_bytes()).await?;
        let release = repository.recall_release(&target.signed)?;
        if aside(|| own.slots.open(&program)).is_err() {
            self.fetch(&release, &program).await?;
        }
        let mark = Mark { version: release.version, target: release.target.clone() };
        let (own_slots, tried) = (own.clone(), program.clone());
        let tried = tokio::task::spawn_blocking(move || own_slots.slots.try_out(&tried, &mark));
        tried.await.map_err(|panic| ProgramError::Refused(panic.to_string()))??;
        let candidate = Candidate {
            program,
            terms: self.parts.terms.clone(),
            oldest: release.oldest,
            models: self.parts.installer.answering(),
            lives: Lives::begin(&super::boot()),
            begun_s: 0,
        };
        self.change(|takeover| takeover.stage(candidate))??;
        self.report(&version, "staged", "");
        self.parts.counters.program_staged(&version);
        own.restart();
        Ok(())
    }

    async fn fetch(&self, release: &Release, program: &Program) -> Result<(), ProgramError> {
        let Parts { own, uplink, incoming, .. } = &self.parts;
        let _alone = incoming.alone(program.sha256).await;
        let bases = self.bases();
        let whole = incoming.fetch(uplink, release.program.into(), &bases).await?;
        Ok(aside(|| own.slots.take(&whole, program))?)
    }

    /// What a delta may lead from: what runs, and what is installed.
    fn bases(&self) -> Vec<Base> {
        let own = &self.parts.own;
        let kept: Vec<Program> = own.now().kept().cloned().collect();
        let kept = kept.into_iter().map(|p| Base { hash: p.sha256, path: own.slots.path(&p) });
        let installed = self
            .installed
            .iter()
            .map(|program| Base { hash: program.sha256, path: own.begun.launcher.clone() });
        kept.chain(installed).collect()
    }

    /// Tells the cloud, and whoever asks for the status, how it stands.
    fn report(&self, wanted: &str, phase: &str, reason: &str) {
        let status = self.parts.own.tell(wanted, phase, reason);
        let agent = ReportedAgent {
            version: super::version().to_owned(),
            target: status.target,
            installed: status.is_installed,
            wanted: status.wanted,
            phase: status.phase,
            reason: status.reason,
        };
        self.parts.reported.send_if_modified(|state| {
            let changed = state.agent.as_ref() != Some(&agent);
            state.agent = Some(agent);
            changed
        });
    }
}

/// The version that is wanted, for people; what cannot be read has none.
fn wanted_text(releases: &[bytes::Bytes]) -> String {
    let first = releases.first().and_then(|json| SignedRelease::from_json(json).ok()?.read().ok());
    first.map(|release| release.version.to_string()).unwrap_or_default()
}

/// The build for this machine, of those that are wanted.
fn choose(releases: &[bytes::Bytes]) -> Result<Option<Target>, ProgramError> {
    let own = &own_mark().target;
    let mut others = Vec::new();
    for json in releases {
        let signed = SignedRelease::from_json(json)?;
        let release = signed.read()?;
        if release.target == *own {
            return Ok(Some(Target { signed, release }));
        }
        others.push(release.target);
    }
    match others.is_empty() {
        true => Ok(None),
        false => Err(ProgramError::NoBuild { own: own.clone(), others: others.join(", ") }),
    }
}
