//! What is summed up on the device, so that a month of requests costs little: counters for each model, version, placement
//! and reason, and histograms of where the time went.

use crate::state::DroppedRow;
use protocol::id::{ModelName, Version};
use protocol::infer::Verdict;
use std::collections::BTreeMap;
use std::time::Duration;
use telemetry::histogram::Histogram;
use telemetry::wire::{Aggregate, Counters, Dropped, ModelCounters};

/// Different rows that are kept; what is beyond counts in a row without a name.
const ROWS_MAX: usize = 1024;

/// Whose row it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) placement: &'static str,
    pub(super) reason: &'static str,
}

impl Key {
    pub(super) fn new(
        model: &ModelName,
        version: Option<Version>,
        placement: &'static str,
        reason: &'static str,
    ) -> Self {
        let version = version.map_or(0, Version::get);
        Self { model: model.to_string(), version, placement, reason }
    }

    fn other() -> Self {
        Self { model: String::new(), version: 0, placement: "", reason: "" }
    }
}

/// Sums since they were taken last.
#[derive(Debug, Default)]
pub(super) struct Sums {
    rows: BTreeMap<Key, Row>,
}

#[derive(Debug, Default)]
struct Row {
    requests: u64,
    failures: u64,
    total: Histogram,
    queue: Histogram,
    infer: Histogram,
    network: Histogram,
    confidence: Histogram,
}

impl Sums {
    fn row(&mut self, key: Key) -> &mut Row {
        let known = self.rows.len() < ROWS_MAX || self.rows.contains_key(&key);
        self.rows.entry(if known { key } else { Key::other() }).or_default()
    }

    /// An answer. Its histograms are kept where `detailed`.
    #[allow(clippy::cast_precision_loss)] // microseconds of a request
    pub(super) fn answered(&mut self, key: Key, verdict: &Verdict, took: Duration, detailed: bool) {
        let row = self.row(key);
        row.requests += 1;
        if !detailed {
            return;
        }
        row.total.record(took.as_secs_f64() * 1e6);
        row.queue.record(verdict.timing.queue_us as f64);
        row.infer.record(verdict.timing.infer_us as f64);
        row.network.record(verdict.timing.network_us as f64);
        if let Some(confidence) = verdict.confidence {
            row.confidence.record(confidence.into());
        }
    }

    /// No answer.
    pub(super) fn failed(&mut self, key: Key) {
        let row = self.row(key);
        row.requests += 1;
        row.failures += 1;
    }

    /// What was summed since the last time, and begins anew.
    pub(super) fn take(
        &mut self,
        (from_unix_ms, to_unix_ms): (u64, u64),
        dropped: &[DroppedRow],
    ) -> (Counters, Vec<Aggregate>) {
        let rows = std::mem::take(&mut self.rows);
        let aggregates = rows.iter().filter(|(_, row)| row.total.count() > 0);
        let aggregates = aggregates.map(|(key, row)| Aggregate {
            from_unix_ms,
            to_unix_ms,
            model: key.model.clone(),
            version: key.version,
            placement: key.placement.into(),
            reason: key.reason.into(),
            total: row.total.to_wire(),
            queue: row.queue.to_wire(),
            infer: row.infer.to_wire(),
            network: row.network.to_wire(),
            confidence: row.confidence.to_wire(),
        });
        let aggregates = aggregates.collect();
        let models = rows.into_iter().map(|(key, row)| ModelCounters {
            model: key.model,
            version: key.version,
            placement: key.placement.into(),
            reason: key.reason.into(),
            requests: row.requests,
            failures: row.failures,
        });
        let models = models.collect();
        let dropped = dropped.iter().map(|row| Dropped {
            class: row.class.into(),
            reason: row.cause.as_str().into(),
            records: row.records,
            bytes: row.bytes,
        });
        let dropped = dropped.collect();
        (Counters { from_unix_ms, to_unix_ms, models, dropped }, aggregates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded_and_none_is_lost() {
        let mut sums = Sums::default();
        for version in 0..2 * ROWS_MAX as u64 {
            let key = Key { model: "m".into(), version, placement: "edge", reason: "x" };
            sums.failed(key);
        }
        let (counters, aggregates) = sums.take((1, 2), &[]);
        assert_eq!((counters.models.len(), aggregates.len()), (ROWS_MAX + 1, 0));
        assert_eq!(counters.models.iter().map(|row| row.failures).sum::<u64>(), 2048);
        assert!(sums.take((2, 3), &[]).0.models.is_empty());
    }
}
