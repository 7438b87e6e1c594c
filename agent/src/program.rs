//! The agent's own program: which file runs, and how the next one takes over (`edge::takeover` decides).
//!
//! * [`launch`]: every start begins with the installed program, which runs the one that the record names in its
//!   own place (`exec`): no parent stays behind, and process id, signals and the service manager's socket do.
//! * [`slots`]: the programs that are kept, named by their hash, `programs/` in the state folder;
//! * [`record`]: what is written down of them, `program.json` beside it;
//! * [`task`]: how it comes here; [`trial`]: whether it is well; [`alarm`]: the end of one that does not even
//!   say so.
//!
//! Nothing of a candidate is needed to go back: not its code, not what it wrote.

mod alarm;
mod launch;
mod record;
mod slots;
mod task;
mod trial;

pub(crate) use launch::{Begun, begin, begin_anew};
pub(crate) use slots::{SAY, hash};
pub(crate) use task::{Parts, Task};
pub(crate) use trial::Trial;

use crate::lock::StateLock;
use edge::takeover::{Program, Stage, Takeover};
use protocol::release::{MARK_BYTES, Mark, mark};
use record::{Record, RecordError};
use serde::{Deserialize, Serialize};
use slots::Slots;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, watch};

/// What this program is, for whoever looks into the file.
static MARK: [u8; MARK_BYTES] = mark(env!("CARGO_PKG_VERSION"), env!("OUTRIGGER_TARGET"));

/// What this program is. As the file says it, and not as it was compiled: there is one truth.
pub(crate) fn own_mark() -> &'static Mark {
    static OWN: OnceLock<Mark> = OnceLock::new();
    let read = || Mark::read(std::hint::black_box(&MARK)).expect("every program is marked");
    OWN.get_or_init(read)
}

/// The version of this program.
pub(crate) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| own_mark().version.to_string())
}

/// Which run of this device it is; the same until it is switched off.
pub(crate) fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// How the agent's program stands, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramStatus {
    /// What it was built for.
    pub(crate) target: String,
    /// Whether it is the installed one, or one that came from the cloud.
    pub(crate) is_installed: bool,
    /// The version that is to take over; empty for none.
    pub(crate) wanted: String,
    /// How far that is: `fetching`, `waiting`, `staged`, `trial`, `soak`, `refused`; `settled` for none.
    pub(crate) phase: String,
    /// What did not hold, or is wrong; empty when nothing is.
    pub(crate) reason: String,
}

/// The agent's program, as the running agent knows it.
pub(crate) struct Own {
    begun: Begun,
    record: Record,
    takeover: watch::Sender<Takeover>,
    writing: Mutex<()>,
    slots: Slots,
    told: Mutex<ProgramStatus>,
    restart: Notify,
    restarts: AtomicBool,
}

impl Own {
    /// Reads what is written down. The state folder must be locked.
    pub(crate) fn open(state_dir: &Path, begun: Begun) -> Result<Arc<Self>, RecordError> {
        let record = Record::of(state_dir);
        let takeover = watch::Sender::new(record.read()?);
        let told = ProgramStatus {
            target: own_mark().target.clone(),
            is_installed: !begun.is_kept,
            phase: takeover.borrow().stage.as_str().to_owned(),
            reason: why(&takeover.borrow()),
            ..Default::default()
        };
        Ok(Arc::new(Self {
            begun,
            record,
            takeover,
            writing: Mutex::default(),
            slots: Slots::of(state_dir),
            told: Mutex::new(told),
            restart: Notify::new(),
            restarts: AtomicBool::new(false),
        }))
    }

    /// The record as it is now.
    fn now(&self) -> Takeover {
        self.takeover.borrow().clone()
    }

    /// Changes the record; what could not be written down has not happened.
    fn change<T>(&self, change: impl FnOnce(&mut Takeover) -> T) -> Result<T, RecordError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, mut next) = (self.now(), self.now());
        let result = change(&mut next);
        if next != now {
            self.record.write(&next)?;
            self.takeover.send_replace(next);
        }
        Ok(result)
    }

    fn told(&self) -> MutexGuard<'_, ProgramStatus> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands.
    pub(crate) fn status(&self) -> ProgramStatus {
        self.told().clone()
    }

    /// From now on it stands so.
    fn tell(&self, wanted: &str, phase: &str, reason: &str) -> ProgramStatus {
        let mut told = self.told();
        let [wanted, phase, reason] = [wanted, phase, reason].map(str::to_owned);
        *told = ProgramStatus { wanted, phase, reason, ..told.clone() };
        told.clone()
    }

    /// Ends this program in order, and begins anew with what the record says by then.
    fn restart(&self) {
        self.restarts.store(true, Relaxed);
        self.restart.notify_one();
    }

    /// Waits until the agent is to begin anew.
    pub(crate) async fn restart_wanted(&self) {
        self.restart.notified().await;
    }

    /// Whether the agent begins anew at its end.
    pub(crate) fn restarts(&self) -> bool {
        self.restarts.load(Relaxed)
    }

    /// Whether this is a program that has not taken over yet.
    pub(crate) fn is_candidate(&self) -> bool {
        self.begun.is_kept && matches!(self.now().stage, Stage::Trial | Stage::Soak)
    }

    /// The agent ends in order: the program is not to blame.
    pub(crate) fn ends_in_order(&self) {
        if let Err(error) = self.change(Takeover::ends_in_order) {
            let error = protocol::problem::chain(&error);
            tracing::warn!(error, "the orderly end is not written down");
        }
    }

    /// Removes what is not kept any more. What cannot be removed now is tried again at the next occasion.
    fn sweep(&self) {
        let kept: Vec<Program> = self.now().kept().cloned().collect();
        if let Err(error) = self.slots.sweep(&kept) {
            tracing::warn!(%error, "a program that nobody needs stays");
        }
    }
}

/// A program that was begun with could not serve: where that is a candidate, it gives way at once, and the agent
/// is to begin anew.
pub(crate) fn gives_way(state_dir: &Path, begun: &Begun, why: &anyhow::Error) -> bool {
    let Ok(_lock) = StateLock::take(state_dir) else { return false };
    let record = Record::of(state_dir);
    let Ok(mut takeover) = record.read() else { return false };
    let reason = format!("it does not serve: {why:#}");
    let is_candidate = begun.is_kept && takeover.stage == Stage::Trial;
    is_candidate && takeover.fail(reason, true) && record.write(&takeover).is_ok()
}

/// What there is to say about what was, in words.
fn why(takeover: &Takeover) -> String {
    let refused = takeover.refused.as_ref();
    let refused = refused.map(|r| format!("version {} gave way: {}", r.program.version, r.reason));
    refused.unwrap_or_else(|| takeover.note.clone())
}
