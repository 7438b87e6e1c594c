//! What waits of one signal, and the thread that hands it over.

use crate::counter::Counter;
use protocol::otlp::{Outbox, OutboxPolicy, Signal};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Counts;
use super::collector::{Attempt, Collector};

/// What those who tell something and the thread share.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
    sent: Counter,
    no_room: Counter,
    undelivered: Counter,
    rejected: Counter,
    failures: Counter,
}

#[derive(Debug)]
struct Waiting<T> {
    outbox: Outbox<T>,
    finishing: bool,
    said: Said,
}

/// What was said of the collector.
#[derive(Debug)]
pub(super) struct Said {
    what: &'static str,
    /// The last attempt failed, and that was said.
    failing: bool,
}

impl Said {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Says a failure once, until it is over.
    pub(super) fn say(&mut self, result: Result<&str, &str>) {
        let what = self.what;
        match result {
            Err(_) if self.failing => {}
            Err(why) => tracing::warn!(why, "the collector takes no {what}"),
            Ok(why) if !why.is_empty() => tracing::warn!(why, "the collector left {what} out"),
            Ok(_) if self.failing => tracing::info!("the collector takes {what} again"),
            Ok(_) => {}
        }
        self.failing = result.is_err();
    }
}

impl<T> Queue<T> {
    pub(super) fn new(signal: Signal, policy: OutboxPolicy) -> Self {
        let what = match signal {
            Signal::Traces => "spans",
            Signal::Metrics => "figures",
            Signal::Logs => "lines of the log",
        };
        let (outbox, said) = (Outbox::new(policy), Said::new(what));
        Self {
            waiting: Mutex::new(Waiting { outbox, finishing: false, said }),
            changed: Condvar::new(),
            sent: Counter::default(),
            no_room: Counter::default(),
            undelivered: Counter::default(),
            rejected: Counter::default(),
            failures: Counter::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
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

    /// Takes something in, or throws it away.
    pub(crate) fn put(&self, item: T) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let before = waiting.outbox.poll_timeout(now);
        let taken = waiting.outbox.handle_item(item, now);
        let wakes = before != waiting.outbox.poll_timeout(now);
        drop(waiting);
        if !taken {
            self.no_room.add(1);
        } else if wakes {
            self.changed.notify_all();
        }
    }

    /// Hands over what `encode` makes of a batch, until the end.
    pub(super) fn deliver(&self, collector: &Collector, encode: impl Fn(&[T]) -> Vec<u8>) {
        while let Some(batch) = self.next() {
            let attempt = collector.take(&encode(&batch));
            let mut waiting = self.waiting();
            match attempt {
                Attempt::Taken(exported) => {
                    waiting.outbox.handle_done();
                    let rejected = exported.rejected.min(batch.len() as u64);
                    self.sent.add(batch.len() as u64 - rejected);
                    self.rejected.add(rejected);
                    waiting.said.say(Ok(&exported.why));
                }
                Attempt::Refused(why) => {
                    waiting.outbox.handle_done();
                    self.rejected.add(batch.len() as u64);
                    self.failures.add(1);
                    waiting.said.say(Err(&why));
                }
                Attempt::TryAgain { wait, why } => {
                    let entropy = u64::from_le_bytes(crate::entropy());
                    let lost = waiting.outbox.handle_failed(batch, wait, entropy, Instant::now());
                    self.undelivered.add(lost as u64);
                    self.failures.add(1);
                    waiting.said.say(Err(&why));
                }
            }
            drop(waiting);
            self.changed.notify_all();
        }
    }

    /// Waits for a batch; none at the end.
    fn next(&self) -> Option<Vec<T>> {
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

    /// From now on nothing waits for others.
    pub(super) fn begin_finish(&self) {
        let mut waiting = self.waiting();
        waiting.finishing = true;
        waiting.outbox.finish();
        drop(waiting);
        self.changed.notify_all();
    }

    /// Hands over what waits, and waits for that, until then. What remains counts as lost.
    pub(super) fn finish(&self, end: Instant) {
        self.begin_finish();
        let mut waiting = self.waiting();
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
