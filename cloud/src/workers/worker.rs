//! A model's worker over all of its lives: one process at a time, started again when it ends.
//!
//! A thread of its own starts every process and waits for its end; the kernel ends the process with
//! that thread, so neither can be forgotten. Sessions keep their lanes over a restart: the next
//! process opens as many before it is shown to anybody.

use fleet::restarts::{End, Next, Restarts};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::events::Events;
use super::job::{Failure, Opened};
use super::lane::LANES_MAX;
use super::process::{Ending, Launch, Leash, Process, Unwilling};

/// How long the reason of a failed load is waited for: the process has ended by then.
const REASON_WAIT: Duration = Duration::from_secs(10);
/// Threads that wait for a process need no more stack.
const STACK_BYTES: usize = 256 << 10;

/// Until it is known how.
const JUST_ENDED: &str = "has just ended";

/// How a worker stands.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Its first process is on its way.
    Starting,
    /// It answers.
    Running(Arc<Process>),
    /// Its process ended, and the next one is on its way.
    Restarting { why: String },
    /// Its processes end too often: it is left alone until then.
    HeldBack { why: String, until: Instant },
    /// There will be no other process.
    Ended { why: String },
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// The worker said why.
    Said(Failure),
    /// It ended, as in "it ...".
    Ended(String),
    /// It has as many as it can.
    Full,
}

/// Why there is no process to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Absent {
    /// The next one was not there in time.
    Late(String),
    /// There is none for now, or for ever.
    Refused(String),
}

/// A model's worker. Dropping it ends its process.
#[derive(Debug)]
pub(super) struct Worker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    launch: Launch,
    events: Arc<Events>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Lanes that somebody has; those in `open` are opened again after a restart.
    taken: BTreeSet<usize>,
    open: BTreeSet<usize>,
    is_unwanted: bool,
}

impl Worker {
    /// Starts a worker; its first process is on its way.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(launch: Launch, events: Arc<Events>) -> io::Result<Self> {
        let state = State {
            standing: Standing::Starting,
            taken: BTreeSet::new(),
            open: BTreeSet::new(),
            is_unwanted: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { launch, events, state, changed });
        let own = shared.clone();
        let thread = thread::Builder::new().name("worker".into()).stack_size(STACK_BYTES);
        thread.spawn(move || own.supervise())?;
        Ok(Self(shared))
    }

    /// How it stands now.
    pub(super) fn standing(&self) -> Standing {
        self.0.state().standing.clone()
    }

    pub(super) fn launch(&self) -> &Launch {
        &self.0.launch
    }

    pub(super) fn events(&self) -> &Events {
        &self.0.events
    }

    /// How many sessions it has.
    pub(super) fn sessions(&self) -> usize {
        self.0.state().taken.len()
    }

    /// Opens one more session: its lane, and what it takes and gives. Blocks while it is loaded.
    ///
    /// # Errors
    /// [`NotOpened`]; the lane is free again.
    pub(super) fn open(&self) -> Result<(usize, Opened), NotOpened> {
        let process = self.process_by(None).map_err(|absent| match absent {
            Absent::Late(why) | Absent::Refused(why) => NotOpened::Ended(why),
        })?;
        let index = {
            let mut state = self.0.state();
            let free = (0..LANES_MAX).find(|index| !state.taken.contains(index));
            let index = free.ok_or(NotOpened::Full)?;
            state.taken.insert(index);
            index
        };
        match process.open(index) {
            Ok(opened) => {
                self.0.state().open.insert(index);
                Ok((index, opened))
            }
            Err(unwilling) => {
                self.0.state().taken.remove(&index);
                Err(match unwilling {
                    Unwilling::Said(failure) => NotOpened::Said(failure),
                    Unwilling::Ended => NotOpened::Ended(self.0.reason_of_end(&process)),
                })
            }
        }
    }

    /// Gives a session back.
    pub(super) fn close(&self, index: usize) {
        let mut state = self.0.state();
        state.taken.remove(&index);
        state.open.remove(&index);
        if let Standing::Running(process) = &state.standing {
            process.lane(index).close();
        }
    }

    /// The process to ask, if there is one now.
    pub(super) fn running(&self) -> Option<Arc<Process>> {
        match &self.0.state().standing {
            Standing::Running(process) => Some(process.clone()),
            _ => None,
        }
    }

    /// The process to ask; waits for the next one until `end`, or for as long as that takes.
    ///
    /// # Errors
    /// [`Absent`].
    pub(super) fn process_by(&self, end: Option<Instant>) -> Result<Arc<Process>, Absent> {
        let mut state = self.0.state();
        loop {
            let why = match &state.standing {
                Standing::Running(process) => return Ok(process.clone()),
                Standing::Ended { why } => return Err(Absent::Refused(why.clone())),
                Standing::HeldBack { why, until } => {
                    let rest_s = until.saturating_duration_since(Instant::now()).as_secs();
                    let text =
                        format!("{why}; it ended too often and is tried again in {rest_s} s");
                    return Err(Absent::Refused(text));
                }
                Standing::Restarting { why } => why.clone(),
                Standing::Starting => "is being started".into(),
            };
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return Err(Absent::Late(why));
            }
            let most = end.map_or(REASON_WAIT, |end| end - now);
            let waited = self.0.changed.wait_timeout(state, most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_unwanted = true;
        if let Standing::Running(process) = &state.standing {
            process.kill("its model was unloaded");
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self, standing: Standing) {
        self.state().standing = standing;
        self.changed.notify_all();
    }

    /// Process after process, until the worker is not wanted any more, or its first one ends before
    /// it has a session.
    fn supervise(&self) {
        let mut restarts = Restarts::default();
        for life in 0_u64.. {
            let began = Instant::now();
            let ending = match self.live(life > 0) {
                Ok(ending) => ending,
                Err(error) => {
                    let why = format!("cannot be started: {error}");
                    if self.state().open.is_empty() {
                        return self.stand(Standing::Ended { why });
                    }
                    tracing::error!(worker = self.launch.label, %why, "no worker");
                    let next = restarts.handle_end(End::Own, began.elapsed(), Instant::now());
                    self.pause(next, why);
                    continue;
                }
            };
            let label = &self.launch.label;
            if self.state().is_unwanted {
                self.events.stopped(label);
                return;
            }
            let end = if ending.is_from_outside() { End::Outside } else { End::Own };
            let why = ending.describe();
            if self.state().open.is_empty() {
                self.events.ended(label, &ending, end, None);
                return self.stand(Standing::Ended { why });
            }
            let next = restarts.handle_end(end, began.elapsed(), Instant::now());
            self.events.ended(label, &ending, end, Some(next));
            self.pause(next, why);
            if self.state().is_unwanted {
                return;
            }
        }
    }

    /// One process, from its start to its end.
    fn live(&self, is_again: bool) -> io::Result<Ending> {
        let (process, leash) = Process::start(&self.launch)?;
        self.events.started(&self.launch.label, process.id, is_again);
        match self.prepare(&process) {
            Ok(()) => self.show(&process),
            Err(Unwilling::Said(failure)) => process.kill(&format!("it says: {failure:?}")),
            Err(Unwilling::Ended) => {}
        }
        self.wait(&process, leash)
    }

    /// Whoever is told that a run was lost asks for the process again, and must wait for the next one.
    fn wait(&self, process: &Process, leash: Leash) -> io::Result<Ending> {
        process.wait(leash, || {
            let mut state = self.state();
            if matches!(state.standing, Standing::Running(_)) {
                state.standing = Standing::Restarting { why: JUST_ENDED.into() };
            }
        })
    }

    /// Brings a process to where the one before was.
    fn prepare(&self, process: &Process) -> Result<(), Unwilling> {
        let confinement = process.employ(&self.launch.job)?;
        if !confinement.is_full() {
            self.events.unconfined(&self.launch.label, &confinement);
        }
        let lanes = self.state().open.clone();
        lanes.into_iter().try_for_each(|index| process.open(index).map(drop))
    }

    fn show(&self, process: &Arc<Process>) {
        let mut state = self.state();
        if state.is_unwanted {
            process.kill("its model was unloaded");
        }
        let open = state.open.clone();
        state.standing = Standing::Running(process.clone());
        drop(state);
        self.changed.notify_all();
        tracing::debug!(worker = self.launch.label, ?open, "worker answers");
    }

    fn pause(&self, next: Next, why: String) {
        let wait = match next {
            Next::Restart(wait) => {
                self.stand(Standing::Restarting { why });
                wait
            }
            Next::HoldBack(wait) => {
                self.stand(Standing::HeldBack { why, until: Instant::now() + wait });
                wait
            }
        };
        let end = Instant::now() + wait;
        let mut state = self.state();
        while !state.is_unwanted && Instant::now() < end {
            let rest = end.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Standing::HeldBack { why, .. } = &state.standing {
            state.standing = Standing::Restarting { why: why.clone() };
        }
    }

    /// How a process ended that did not answer; its end is near, or has just been.
    fn reason_of_end(&self, process: &Arc<Process>) -> String {
        let end = Instant::now() + REASON_WAIT;
        let mut state = self.state();
        loop {
            match &state.standing {
                Standing::Ended { why }
                | Standing::HeldBack { why, .. }
                | Standing::Restarting { why }
                    if why != JUST_ENDED =>
                {
                    return why.clone();
                }
                Standing::Running(now) if !Arc::ptr_eq(now, process) => break,
                _ => {}
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        "ended while the model was loaded".into()
    }
}
