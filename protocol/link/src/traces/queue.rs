//! Spans that wait, and the thread that hands them over.

use crate::counter::Counter;
use protocol::trace::{Outbox, OutboxPolicy, Resource, Span};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Counts;
use super::collector::{Attempt, Collector};

/// What requests and the thread share.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    sent: Counter,
    no_room: Counter,
    undelivered: Counter,
    rejected: Counter,
    failures: Counter,
}

#[derive(Debug)]
struct Waiting {
    outbox: Outbox<Span>,
    finishing: bool,
    /// The last attempt failed, and that was said.
    failing: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let outbox = Outbox::new(OutboxPolicy::default());
        Self {
            waiting: Mutex::new(Waiting { outbox, finishing: false, failing: false }),
            changed: Condvar::new(),
            sent: Counter::default(),
            no_room: Counter::default(),
            undelivered: Counter::default(),
            rejected: Counter::default(),
            failures: Counter::default(),
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            sent: self.sent.get(),
            no_room: self.no_room.get(),
            undelivered: self.undelivered.get(),
            rejected: self.rejected.get(),
            failures: self.failures.get(),
        }
    }

    /// Takes a span in, or throws it away.
    pub(super) fn put(&self, span: Span) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let before = waiting.outbox.poll_timeout(now);
        let taken = waiting.outbox.handle_item(span, now);
        let wakes = before != waiting.outbox.poll_timeout(now);
        drop(waiting);
        if !taken {
            self.no_room.add(1);
        } else if wakes {
            self.changed.notify_all();
        }
    }

    /// Hands spans over until the end.
    pub(super) fn deliver(&self, collector: &Collector, resource: &Resource) {
        while let Some(batch) = self.next() {
            let spans = batch.len() as u64;
            let attempt = collector.take(&resource.export(&batch));
            let mut waiting = self.waiting();
            match attempt {
                Attempt::Taken(exported) => {
                    waiting.outbox.handle_done();
                    let rejected = exported.rejected.min(spans);
                    self.sent.add(spans - rejected);
                    self.rejected.add(rejected);
                    self.say(&mut waiting, Ok(&exported.why));
                }
                Attempt::Refused(why) => {
                    waiting.outbox.handle_done();
                    self.rejected.add(spans);
                    self.say(&mut waiting, Err(&why));
                }
                Attempt::TryAgain { wait, why } => {
                    let entropy = u64::from_le_bytes(crate::entropy());
                    let lost = waiting.outbox.handle_failed(batch, wait, entropy, Instant::now());
                    self.undelivered.add(lost as u64);
                    self.say(&mut waiting, Err(&why));
                }
            }
            drop(waiting);
            self.changed.notify_all();
        }
    }

    /// Counts a failure, and says it once until it is over.
    fn say(&self, waiting: &mut Waiting, result: Result<&String, &String>) {
        match result {
            Err(why) => {
                self.failures.add(1);
                if !waiting.failing {
                    tracing::warn!(why, "the collector takes no spans");
                }
            }
            Ok(why) if !why.is_empty() => tracing::warn!(why, "the collector left spans out"),
            Ok(_) if waiting.failing => tracing::info!("the collector takes spans again"),
            Ok(_) => {}
        }
        waiting.failing = result.is_err();
    }

    /// Waits for a batch; none at the end.
    fn next(&self) -> Option<Vec<Span>> {
        let mut waiting = self.waiting();
        loop {
            let now = Instant::now();
            if let Some(batch) = waiting.outbox.poll(now) {
                return Some(batch);
            }
            if waiting.finishing && waiting.outbox.is_empty() {
                return None;
            }
            waiting = match waiting.outbox.poll_timeout(now) {
                Some(at) => {
                    let wait = at.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(waiting, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Hands over what waits, and waits for that, at most so long. What remains counts as lost.
    pub(super) fn finish(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut waiting = self.waiting();
        waiting.finishing = true;
        waiting.outbox.finish();
        self.changed.notify_all();
        while !waiting.outbox.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.undelivered.add(waiting.outbox.len() as u64);
                return;
            }
            let woken = self.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
