//! What became of the requests to one version, counted without a lock, in the standard's terms.

use protocol::id::{ModelName, Version};
use protocol::wire::inference::{InferStatistics, ModelStatistics, StatisticDuration};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often, and how long in all.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Tally {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Option<StatisticDuration> {
        Some(StatisticDuration { count: self.count.load(Relaxed), ns: self.ns.load(Relaxed) })
    }
}

/// The counters of one version.
#[derive(Debug, Default)]
pub struct Statistics {
    success: Tally,
    fail: Tally,
    queue: Tally,
    compute: Tally,
    items: AtomicU64,
    last_ms: AtomicU64,
}

impl Statistics {
    /// A request was answered, from wherever.
    pub fn answered(&self, items: u64, took: Duration) {
        self.success.add(took);
        self.items.fetch_add(items, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A request was not answered.
    pub fn failed(&self, took: Duration) {
        self.fail.add(took);
    }

    /// A model of this process ran, with pre-processing and reading of the answer.
    pub fn ran(&self, queue_us: u64, infer_us: u64) {
        self.queue.add(Duration::from_micros(queue_us));
        self.compute.add(Duration::from_micros(infer_us));
    }

    /// The counters now. Pre-processing is not timed apart from the run, so it stands at no time
    /// for as many times.
    pub fn read(&self, model: &ModelName, version: Version) -> ModelStatistics {
        let runs = self.compute.count.load(Relaxed);
        let untimed = Some(StatisticDuration { count: runs, ns: 0 });
        let never = Some(StatisticDuration::default());
        ModelStatistics {
            name: model.to_string(),
            version: version.to_string(),
            last_inference: self.last_ms.load(Relaxed),
            inference_count: self.items.load(Relaxed),
            execution_count: runs,
            inference_stats: Some(InferStatistics {
                success: self.success.read(),
                fail: self.fail.read(),
                queue: self.queue.read(),
                compute_input: untimed,
                compute_infer: self.compute.read(),
                compute_output: untimed,
                cache_hit: never,
                cache_miss: never,
            }),
            batch_stats: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let statistics = Statistics::default();
        statistics.ran(5, 20);
        statistics.answered(8, Duration::from_micros(30));
        statistics.answered(1, Duration::from_micros(10)); // by the cloud
        statistics.failed(Duration::from_micros(7));
        let read = statistics.read(&"m".parse().unwrap(), Version::FIRST);
        let stats = read.inference_stats.unwrap();
        assert_eq!((read.inference_count, read.execution_count), (9, 1));
        assert_eq!(stats.success, Some(StatisticDuration { count: 2, ns: 40_000 }));
        assert_eq!(stats.fail, Some(StatisticDuration { count: 1, ns: 7_000 }));
        assert_eq!(stats.queue, Some(StatisticDuration { count: 1, ns: 5_000 }));
        assert_eq!(stats.compute_infer, Some(StatisticDuration { count: 1, ns: 20_000 }));
        assert!(read.last_inference > 0);
    }
}
