//! What became of a worker's jobs, counted without a lock.

use std::ops::Add;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What became of jobs since the start; `waiting` is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Taken and not yet answered, the running one included.
    pub waiting: u64,
    /// Taken into the queue.
    pub queued: u64,
    /// Run, whether the model answered or failed.
    pub run: u64,
    /// Of those, failed.
    pub failed: u64,
    /// Refused because the queue was full.
    pub refused: u64,
    /// Dropped before they ran: nobody waited any more, or the model was unloaded.
    pub cancelled: u64,
    /// Dropped before they ran: their deadline had passed.
    pub expired: u64,
}

impl Add for Counters {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            waiting: self.waiting + other.waiting,
            queued: self.queued + other.queued,
            run: self.run + other.run,
            failed: self.failed + other.failed,
            refused: self.refused + other.refused,
            cancelled: self.cancelled + other.cancelled,
            expired: self.expired + other.expired,
        }
    }
}

/// The counters while they count. A job is entered before it is queued, so that the worker can
/// never finish one that was not entered; a refused one is taken out again.
#[derive(Debug, Default)]
pub(super) struct Tally {
    entered: AtomicU64,
    run: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    expired: AtomicU64,
    stopped: AtomicBool,
}

impl Tally {
    pub(super) fn enter(&self) {
        self.entered.fetch_add(1, Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn cancel(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    pub(super) fn expire(&self) {
        self.expired.fetch_add(1, Relaxed);
    }

    pub(super) fn finish(&self, answered: bool) {
        self.failed.fetch_add(u64::from(!answered), Relaxed);
        self.run.fetch_add(1, Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    pub(super) fn snapshot(&self) -> Counters {
        let [run, failed] = [&self.run, &self.failed].map(|c| c.load(Relaxed));
        let [cancelled, expired] = [&self.cancelled, &self.expired].map(|c| c.load(Relaxed));
        let refused = self.refused.load(Relaxed);
        let queued = self.entered.load(Relaxed).saturating_sub(refused);
        let waiting = queued.saturating_sub(run + cancelled + expired);
        Counters { waiting, queued, run, failed, refused, cancelled, expired }
    }
}
