//! Models are untrusted input: their first load, first run and probes happen in a child process that
//! has given up what it does not need. What crashes, hangs or eats memory does so there; the agent
//! lives, remembers, and does not try that bundle again.
//!
//! * [`parent`] starts the child (this same program, `prove-model`) and sees to its end;
//! * [`child`] is what runs there, after [`confine`](mod@confine) has taken files, network, system calls, memory
//!   and time away from it;
//! * [`verdict`] is what they say to each other;
//! * [`programs`] names the runtime for which a verdict holds.
//!
//! A bundle that has proven itself is remembered with the versions of agent and runtime, so that a
//! restart starts no child. There is no switch to turn this off: the child costs one load at
//! installation and nothing afterwards.
//!
//! What it is not: a wall around a model that serves. After the verdict the agent loads the model
//! itself, so code in a model that exploits the runtime only there, and behaves in the child, is
//! not stopped by this.

pub(crate) mod child;
mod parent;
mod programs;
mod verdict;

pub(crate) use confine::Confinement;
pub(crate) use verdict::{Course, Proof, Timing};

use crate::config::{Config, Runtime};
use crate::counters::Counters;
use crate::state::{Programs, Quarantined, State, StateError};
use confine::Limits;
use edge::update::Target;
use parent::{Ending, How, Launch, Stop};
use protocol::id::{ContentHash, ModelName};
use protocol::manifest::Manifest;
use rustix::process::Signal;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use verdict::{Job, Outcome, Provider, Refusal, RefusalKind, Stage, Trial, Verdict, Work};

/// The hidden subcommand that is the child.
pub(crate) const SUBCOMMAND: &str = "prove-model";
/// Trials of one bundle that may end with the device, the agent, or a kill from outside, before the
/// bundle is held to be the reason.
const UNCLEAR_ENDS_MAX: i64 = 3;
const MIB: u64 = 1 << 20;

/// How models are tried.
#[derive(Debug, Clone)]
pub(crate) struct Prover {
    library: PathBuf,
    runtime: Runtime,
    limits: Limits,
    time_limit: Duration,
    require_full: bool,
}

impl Prover {
    pub(crate) fn new(library: &Path, config: &Config) -> Self {
        let sandbox = &config.sandbox;
        let memory_mb = match sandbox.memory_mb {
            0 => programs::default_memory_mb(),
            some => some,
        };
        let time_limit = Duration::from_secs(sandbox.time_limit_s.max(1).into());
        let threads = (config.runtime.threads.max(1) * config.runtime.sessions.max(1)) as u64;
        let limits = Limits {
            memory_bytes: memory_mb.saturating_mul(MIB),
            // Never before the time is over by the clock: that ends a child whose parent is there.
            cpu_s: Some(time_limit.as_secs().saturating_mul(threads + 1).saturating_add(10)),
        };
        let library = library.canonicalize().unwrap_or_else(|_| library.to_owned());
        let (runtime, require_full) = (config.runtime.clone(), sandbox.require_full);
        Self { library, runtime, limits, time_limit, require_full }
    }

    /// Tries a bundle whose manifest was verified. Blocks until the child has ended.
    pub(crate) fn prove(&self, folder: &Path, manifest: Manifest) -> Result<Proof, Failed> {
        let stop = Stop::new().map_err(Failed::not_run)?;
        self.try_out(folder, manifest, &stop)
    }

    fn try_out(&self, folder: &Path, manifest: Manifest, stop: &Stop) -> Result<Proof, Failed> {
        let trial = Trial {
            folder: folder.canonicalize().map_err(Failed::not_run)?,
            manifest,
            sessions: self.runtime.sessions,
            threads: self.runtime.threads,
            provider: Provider::Cpu,
        };
        let Verdict { confinement, outcome } = self.run(Work::Prove(Box::new(trial)), stop)?;
        match self.passed(outcome)? {
            Outcome::Proven(proof) => {
                if !confinement.is_full() {
                    tracing::warn!(%confinement, "models are tried with less than full confinement");
                }
                Ok(proof)
            }
            _ => Err(Failed::NotRun("the child tried nothing".into())),
        }
    }

    /// Times models that will not answer, for at most half of the time that a child has.
    fn time(&self, mut course: Course, stop: &Stop) -> Result<Timing, Failed> {
        course.time = course.time.min(self.time_limit / 2);
        course.folder = course.folder.canonicalize().map_err(Failed::not_run)?;
        match self.passed(self.run(Work::Measure(course), stop)?.outcome)? {
            Outcome::Timed(timing) => Ok(timing),
            _ => Err(Failed::NotRun("the child timed nothing".into())),
        }
    }

    /// The outcome in plain words, unless it is a refusal.
    fn passed(&self, outcome: Outcome) -> Result<Outcome, Failed> {
        match outcome.in_plain_words() {
            Outcome::Refused(Refusal { kind: RefusalKind::Environment, why }) => {
                Err(Failed::NotRun(why))
            }
            Outcome::Refused(Refusal { kind: RefusalKind::Memory, why }) => {
                Err(Failed::Harmful(format!("{} ({why})", self.out_of_memory())))
            }
            Outcome::Refused(refusal) => Err(Failed::Refused(refusal.why)),
            other => Ok(other),
        }
    }

    /// How far this system confines a child. Nothing is tried.
    pub(crate) fn confinement(&self) -> Result<Confinement, Failed> {
        let stop = Stop::new().map_err(Failed::not_run)?;
        Ok(self.run(Work::Confine, &stop)?.confinement)
    }

    fn run(&self, work: Work, stop: &Stop) -> Result<Verdict, Failed> {
        let launch = Launch::own(SUBCOMMAND, self.time_limit).map_err(Failed::not_run)?;
        let job = Job {
            library: self.library.clone(),
            work,
            limits: self.limits,
            require_full: self.require_full,
        };
        let ending = parent::run(&launch, &job, stop).map_err(Failed::not_run)?;
        self.judge(ending)
    }

    /// Whose doing the end of a child was.
    fn judge(&self, Ending { how, stage, said }: Ending) -> Result<Verdict, Failed> {
        let at = stage.as_str();
        let words = if said.is_empty() { String::new() } else { format!(": {said}") };
        Err(match how {
            How::Verdict(verdict) => return Ok(*verdict),
            How::Crashed(_) | How::Silent(_) if is_out_of_memory(&said) => {
                Failed::Harmful(format!("{}, {at}{words}", self.out_of_memory()))
            }
            How::Crashed(signal) if signal == Signal::SYS.as_raw() => Failed::Harmful(format!(
                "the model asked for a forbidden system call (SIGSYS) {at}"
            )),
            How::Crashed(signal) => {
                Failed::Harmful(format!("the model crashed ({}) {at}{words}", name_of(signal)))
            }
            How::TimedOut => {
                let limit_s = self.time_limit.as_secs();
                Failed::Harmful(format!("the model was not done after {limit_s} s, {at}"))
            }
            // Nothing of the model was read yet: the program itself did not get that far.
            How::Silent(status) if stage == Stage::Starting => {
                Failed::NotRun(format!("the child ended early ({status}){words}"))
            }
            How::Silent(status) => {
                Failed::Harmful(format!("the model ended its process ({status}) {at}{words}"))
            }
            How::Ended(signal) if signal == Signal::KILL.as_raw() => Failed::Killed(at),
            How::Ended(signal) => Failed::Interrupted(name_of(signal)),
            How::Stopped => Failed::Interrupted("the agent stops".into()),
        })
    }

    fn out_of_memory(&self) -> String {
        let mib = self.limits.memory_bytes / MIB;
        format!("the model wanted more than the {mib} MiB of [sandbox] memory_mb")
    }
}

/// What ONNX Runtime, C++ and Rust say when memory is refused. There is no better sign: the system
/// tells only whoever asked for the memory.
fn is_out_of_memory(text: &str) -> bool {
    ["Failed to allocate memory", "bad_alloc", "bad allocation", "memory allocation of"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn name_of(signal: i32) -> String {
    let names = [
        (Signal::SEGV, "SIGSEGV"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::FPE, "SIGFPE"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
    ];
    let known = names.iter().find(|(known, _)| known.as_raw() == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// Why a trial gave no proof.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It must not be tried again.
    #[error("{0}")]
    Harmful(String),
    /// Another trial would end the same way, and do no harm.
    #[error("refused: {0}")]
    Refused(String),
    /// The child could not do its work, for no fault of the model.
    #[error("the model could not be tried: {0}")]
    NotRun(String),
    /// Killed by somebody else; by the kernel, perhaps, for want of memory.
    #[error("the trial was killed (SIGKILL) {0}; is the device out of memory?")]
    Killed(&'static str),
    /// Somebody ended it in order.
    #[error("the trial was interrupted ({0})")]
    Interrupted(String),
}

impl Failed {
    #[allow(clippy::needless_pass_by_value)] // for `map_err`
    fn not_run(error: io::Error) -> Self {
        Self::NotRun(protocol::problem::chain(&error))
    }
}

/// Why a bundle must not be loaded now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotProven {
    #[error("quarantined: {0}")]
    Quarantined(String),
    #[error(transparent)]
    Failed(Failed),
    #[error(transparent)]
    State(#[from] StateError),
}

impl NotProven {
    /// Whether trying again can help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Quarantined(_) => false,
            Self::Failed(failed) => !matches!(failed, Failed::Harmful(_) | Failed::Refused(_)),
            Self::State(_) => true,
        }
    }
}

/// Tries bundles once, and remembers.
pub(crate) struct Sandbox {
    prover: Prover,
    programs: Programs,
    state: Arc<State>,
    counters: Arc<Counters>,
    /// One child at a time: the limit of memory is for all of them together.
    turn: Mutex<()>,
    stop: Stop,
}

impl Sandbox {
    /// `runtime` names the runtime by its content, as its backend does.
    pub(crate) fn new(
        prover: Prover,
        runtime: String,
        state: Arc<State>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let programs = Programs { agent: crate::program::version().into(), runtime };
        Ok(Self { prover, programs, state, counters, turn: Mutex::new(()), stop: Stop::new()? })
    }

    /// Forgets what holds no more: for other programs, and for bundles that are gone.
    pub(crate) fn tidy(&self, keep: &[Target]) -> Result<(), StateError> {
        self.state.forget_trials(&self.programs, keep)
    }

    /// Lets a bundle pass that has proven itself or does so now. Blocks while it is tried.
    pub(crate) fn admit(
        &self,
        model: &ModelName,
        target: Target,
        folder: &Path,
        manifest: &Manifest,
    ) -> Result<Proof, NotProven> {
        self.check_quarantine(target.bundle)?;
        if let Some(proof) = self.proof(target.bundle) {
            return Ok(proof);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.trial_begins(target.bundle)? > UNCLEAR_ENDS_MAX {
            let why = format!(
                "the agent, the device or the child was ended {UNCLEAR_ENDS_MAX} times while the \
                 model was tried"
            );
            return Err(self.quarantine(model, target, why)?);
        }
        match self.prover.try_out(folder, manifest.clone(), &self.stop) {
            Ok(proof) => {
                self.state.trial_ended(target.bundle)?;
                let json = serde_json::to_string(&proof).unwrap_or_default();
                self.state.keep_proof(target.bundle, &self.programs, &json)?;
                self.counters.proven(model, target.version.get(), &proof);
                Ok(proof)
            }
            Err(Failed::Harmful(why)) => Err(self.quarantine(model, target, why)?),
            Err(failed) => {
                if !matches!(failed, Failed::Killed(_)) {
                    self.state.trial_ended(target.bundle)?;
                }
                self.counters.not_proven(matches!(failed, Failed::Refused(_)));
                Err(NotProven::Failed(failed))
            }
        }
    }

    /// Times models that will not answer. Blocks until the child has ended; what they do to it is of no
    /// consequence but for the report.
    pub(crate) fn time(&self, course: Course) -> Result<Timing, Failed> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.prover.time(course, &self.stop)
    }

    /// Refuses what is in quarantine.
    pub(crate) fn check_quarantine(&self, bundle: ContentHash) -> Result<(), NotProven> {
        let entries = self.state.quarantine()?;
        let holds = |entry: &&Quarantined| {
            entry.bundle == bundle
                && entry.agent == self.programs.agent
                && entry.runtime == self.programs.runtime
        };
        match entries.iter().find(holds) {
            Some(entry) => Err(NotProven::Quarantined(entry.reason.clone())),
            None => Ok(()),
        }
    }

    /// What is remembered of a bundle. What cannot be read any more is shown anew.
    pub(crate) fn proof(&self, bundle: ContentHash) -> Option<Proof> {
        let json = self.state.proof(bundle, &self.programs).ok()??;
        serde_json::from_str(&json).ok()
    }

    /// Quarantines a bundle: it is not tried again with these programs.
    pub(crate) fn quarantine(
        &self,
        model: &ModelName,
        target: Target,
        reason: String,
    ) -> Result<NotProven, StateError> {
        self.state.put_into_quarantine(&self.entry(model, target, reason.clone()))?;
        self.counters.quarantined(model, target.version.get(), &reason);
        Ok(NotProven::Quarantined(reason))
    }

    /// What stands in quarantine of a bundle, for these programs and from now on.
    pub(crate) fn entry(&self, model: &ModelName, target: Target, reason: String) -> Quarantined {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Quarantined {
            model: model.clone(),
            version: target.version.get(),
            bundle: target.bundle,
            reason,
            agent: self.programs.agent.clone(),
            runtime: self.programs.runtime.clone(),
            since_s: i64::try_from(now).unwrap_or(i64::MAX),
        }
    }

    /// Lets a bundle out of quarantine; whether it was in.
    pub(crate) fn release(&self, bundle: ContentHash) -> Result<bool, StateError> {
        let was_in = self.state.release(bundle)?;
        if was_in {
            self.counters.released(bundle);
        }
        Ok(was_in)
    }

    /// Ends a trial that is under way; none begins any more.
    pub(crate) fn stop(&self) {
        self.stop.stop();
    }
}

#[cfg(test)]
mod tests;
