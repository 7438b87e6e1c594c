//! What happens to workers, counted and logged in one place.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::process::Ending;
use fleet::restarts::{End, Next};

/// Counts since the start of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// Worker processes that were started.
    pub started: u64,
    /// Of those, started in the place of one that had ended.
    pub restarted: u64,
    /// Workers that somebody or the system killed.
    pub killed: u64,
    /// Workers that crashed, or ended by themselves.
    pub crashed: u64,
    /// Workers that the server killed: no answer, no load, or an answer that is none.
    pub hung: u64,
    /// Times that a model was held back because its workers failed too often.
    pub held_back: u64,
    /// Runs that were lost with their worker.
    pub lost_runs: u64,
}

/// The counters while they count.
#[derive(Debug, Default)]
pub(super) struct Events {
    started: AtomicU64,
    restarted: AtomicU64,
    killed: AtomicU64,
    crashed: AtomicU64,
    hung: AtomicU64,
    held_back: AtomicU64,
    lost_runs: AtomicU64,
}

impl Events {
    pub(super) fn started(&self, label: &str, process: u32, is_again: bool) {
        self.started.fetch_add(1, Relaxed);
        self.restarted.fetch_add(u64::from(is_again), Relaxed);
        tracing::info!(worker = label, process, is_again, "worker started");
    }

    pub(super) fn unconfined(&self, label: &str, confinement: &confine::Confinement) {
        tracing::warn!(worker = label, %confinement, "worker runs with less than full confinement");
    }

    pub(super) fn stopped(&self, label: &str) {
        tracing::info!(worker = label, "worker stopped: its model was unloaded");
    }

    pub(super) fn ended(&self, label: &str, ending: &Ending, end: End, next: Option<Next>) {
        let count = match (&ending.sentence, end) {
            (Some(_), _) => &self.hung,
            (None, End::Outside) => &self.killed,
            (None, End::Own) => &self.crashed,
        };
        count.fetch_add(1, Relaxed);
        let how = ending.describe();
        match next {
            None => {
                tracing::warn!(worker = label, %how, "worker ended before its model was loaded");
            }
            Some(Next::Restart(Duration::ZERO)) => {
                tracing::warn!(worker = label, %how, "worker ended; it is started again");
            }
            Some(Next::Restart(after)) => {
                tracing::warn!(worker = label, %how, ?after, "worker ended; it is started again soon");
            }
            Some(Next::HoldBack(time)) => {
                self.held_back.fetch_add(1, Relaxed);
                tracing::error!(worker = label, %how, ?time, "worker ended too often; held back");
            }
        }
    }

    pub(super) fn lost_run(&self) {
        self.lost_runs.fetch_add(1, Relaxed);
    }

    pub(super) fn counters(&self) -> WorkerCounters {
        WorkerCounters {
            started: self.started.load(Relaxed),
            restarted: self.restarted.load(Relaxed),
            killed: self.killed.load(Relaxed),
            crashed: self.crashed.load(Relaxed),
            hung: self.hung.load(Relaxed),
            held_back: self.held_back.load(Relaxed),
            lost_runs: self.lost_runs.load(Relaxed),
        }
    }
}
