//! Figures, read and told at an interval, and once more at the end. They are sums: one report that does not
//! arrive is made good by the next, and none waits.

use crate::counter::Counter;
use crate::metrics::Exposition;
use protocol::otlp::{Metric, Moment, Resource};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Counts;
use super::collector::{Attempt, Collector};
use super::queue::Said;

#[derive(Debug)]
pub(super) struct Reports {
    interval: Duration,
    stage: Mutex<Stage>,
    changed: Condvar,
    sent: Counter,
    undelivered: Counter,
    rejected: Counter,
    failures: Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody tells figures.
    Idle,
    Telling,
    /// The last report is to be made.
    Finishing,
    Finished,
}

impl Reports {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            stage: Mutex::new(Stage::Idle),
            changed: Condvar::new(),
            sent: Counter::default(),
            undelivered: Counter::default(),
            rejected: Counter::default(),
            failures: Counter::default(),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        *self.stage() = stage;
        self.changed.notify_all();
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.get(),
            no_room: 0,
            undelivered: self.undelivered.get(),
            rejected: self.rejected.get(),
            failures: self.failures.get(),
        }
    }

    /// Tells figures until the end, or until there are none.
    pub(super) fn deliver(
        &self,
        collector: &Collector,
        resource: &Resource,
        gather: impl Fn() -> Option<Exposition>,
        unix_ns: impl Fn() -> u64,
    ) {
        let since_ns = unix_ns();
        let mut said = Said::new("figures");
        self.enter(Stage::Telling);
        loop {
            let is_last = self.wait();
            let Some(exposition) = gather() else { break };
            let metrics = exposition.into_metrics();
            // A clock that was set back ends no sum before it began.
            let now_ns = unix_ns().max(since_ns);
            let body = resource.export_metrics(&metrics, Moment { since_ns, now_ns });
            self.judge(collector.take(&body), points(&metrics), &mut said);
            if is_last {
                break;
            }
        }
        self.enter(Stage::Finished);
    }

    /// Waits for the next report; whether it is the last one.
    fn wait(&self) -> bool {
        let end = Instant::now() + self.interval;
        let mut stage = self.stage();
        while *stage == Stage::Telling {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(stage, left);
            stage = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn judge(&self, attempt: Attempt, points: u64, said: &mut Said) {
        match attempt {
            Attempt::Taken(exported) => {
                let rejected = exported.rejected.min(points);
                self.sent.add(points - rejected);
                self.rejected.add(rejected);
                said.say(Ok(&exported.why));
            }
            Attempt::Refused(why) => {
                self.rejected.add(points);
                self.failures.add(1);
                said.say(Err(&why));
            }
            Attempt::TryAgain { why, .. } => {
                self.undelivered.add(points);
                self.failures.add(1);
                said.say(Err(&why));
            }
        }
    }

    /// Asks for the last report.
    pub(super) fn begin_finish(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Telling {
            *stage = Stage::Finishing;
        }
        drop(stage);
        self.changed.notify_all();
    }

    /// Waits for it, until then.
    pub(super) fn finish(&self, end: Instant) {
        let mut stage = self.stage();
        while *stage == Stage::Finishing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(stage, left);
            stage = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn points(metrics: &[Metric]) -> u64 {
    metrics.iter().map(|metric| metric.data.len() as u64).sum()
}
