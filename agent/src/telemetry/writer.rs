//! The thread that writes: it gathers records into groups, takes the sums when their time has come, and closes segments.
//! It is a plain thread, for it waits for the disk all the time.

use super::recorder::{Message, Recorder};
use super::spool::Spool;
use super::{unix_ms, vitals};
use crate::clock::Clock;
use crate::uplink::Uplink;
use edge::spool::{Group, SpoolPolicy};
use protocol::wire::ReportedState;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use telemetry::Class;
use telemetry::record::encoded_len;
use telemetry::wire::record::What;
use telemetry::wire::{Record, RolloutEvent};
use tokio::sync::watch;

/// The longest that the thread sleeps.
const NAP_MAX: Duration = Duration::from_secs(30);
/// Age on the shelf is counted in these.
const HOUR: Duration = Duration::from_secs(3600);

/// What the thread works with.
pub(super) struct Writer {
    pub(super) spool: Arc<Spool>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) clock: Arc<Clock>,
    pub(super) uplink: Uplink,
    pub(super) policy: SpoolPolicy,
    /// How often sums are taken.
    pub(super) every: Duration,
    pub(super) state_dir: PathBuf,
}

/// What it remembers.
struct Desk {
    waiting: Vec<Record>,
    group: Group,
    started: Instant,
    summed: (Instant, u64),
    hour: Instant,
}

impl Writer {
    /// Writes until the agent ends.
    pub(super) fn run(self, queue: &Receiver<Message>) {
        let now = Instant::now();
        let mut desk = Desk {
            waiting: Vec::new(),
            group: Group::default(),
            started: now,
            summed: (now, unix_ms(&self.clock)),
            hour: now,
        };
        loop {
            match queue.recv_timeout(self.nap(&desk)) {
                Ok(Message::Record(what)) => self.put(&mut desk, what),
                Ok(Message::End(done)) => {
                    self.sum(&mut desk, Instant::now());
                    self.commit(&mut desk);
                    self.spool.close_all();
                    let _ = done.send(()); // who asked may have lost patience
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.keep_time(&mut desk);
        }
    }

    fn nap(&self, desk: &Desk) -> Duration {
        let now = Instant::now();
        let due = desk.group.poll_timeout(&self.policy);
        let sums = desk.summed.0 + self.every;
        let next = due.map_or(sums, |due| due.min(sums));
        next.saturating_duration_since(now).min(NAP_MAX).min(self.policy.segment_age)
    }

    fn put(&self, desk: &mut Desk, what: What) {
        let record = Record { number: 0, observed_unix_ms: unix_ms(&self.clock), what: Some(what) };
        desk.group.handle_record(encoded_len(std::slice::from_ref(&record)), Instant::now());
        desk.waiting.push(record);
    }

    fn keep_time(&self, desk: &mut Desk) {
        let now = Instant::now();
        if now >= desk.hour + HOUR {
            desk.hour += HOUR;
            self.spool.hour();
        }
        if now >= desk.summed.0 + self.every {
            self.sum(desk, now);
        }
        if desk.group.is_due(&self.policy, now) {
            self.commit(desk);
        } else {
            self.spool.tick(now);
        }
    }

    fn commit(&self, desk: &mut Desk) {
        desk.group.handle_taken();
        let untaken = [
            (Class::Events, &self.recorder.untaken),
            (Class::Samples, &self.recorder.untaken_samples),
        ];
        for (class, count) in untaken {
            self.spool.lost_before(class, count.swap(0, Relaxed));
        }
        self.spool.commit(std::mem::take(&mut desk.waiting), Instant::now());
    }

    /// Takes the sums, and how the device is.
    fn sum(&self, desk: &mut Desk, now: Instant) {
        let (from_ms, to_ms) = (desk.summed.1, unix_ms(&self.clock));
        desk.summed = (now, to_ms);
        let has_key = self.spool.has_key();
        let dropped = self.spool.dropped();
        let (counters, aggregates) =
            self.recorder.with_sums(|sums| sums.take((from_ms, to_ms), &dropped));
        if !counters.models.is_empty() || !counters.dropped.is_empty() {
            self.put(desk, What::Counters(counters));
        }
        if has_key {
            aggregates.into_iter().for_each(|sums| self.put(desk, What::Aggregate(sums)));
            let health = vitals::health(&self.uplink, desk.started.elapsed());
            self.put(desk, What::Health(health));
            self.put(desk, What::Resources(vitals::resources(&self.state_dir)));
        }
    }
}

/// Records what becomes of versions, as the cloud is told of it.
pub(super) async fn follow_rollouts(
    recorder: Arc<Recorder>,
    mut reported: watch::Receiver<ReportedState>,
) {
    let mut known: BTreeMap<String, (u64, String)> = BTreeMap::new();
    while reported.changed().await.is_ok() {
        let models = reported.borrow_and_update().models.clone();
        for model in models {
            let version =
                if model.target_version > 0 { model.target_version } else { model.active_version };
            let now = (version, model.phase.clone());
            if known.insert(model.name.clone(), now.clone()).as_ref() != Some(&now) {
                let (phase, reason) = (model.phase, model.reason);
                recorder.rollout(RolloutEvent { model: model.name, version, phase, reason });
            }
        }
    }
}
