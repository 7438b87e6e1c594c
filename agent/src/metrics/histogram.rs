//! A histogram of durations with fixed buckets, each twice the one before, in atomics.

use super::exposition::Family;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bound of the first bucket: 0.1 ms.
const FIRST_US: u64 = 100;
/// The last one ends at 0.1 ms * 2^16 = 6.6 s; what is beyond is in `+Inf`.
const BOUNDS: usize = 17;

/// How long something took, many times.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// The last one is `+Inf`.
    buckets: [AtomicU64; BOUNDS + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn record(&self, us: u64) {
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Writes the cumulative buckets, the sum in seconds and the count. The count is the sum of
    /// the buckets as they were read, so that the three agree while others record.
    pub(super) fn render(&self, family: &mut Family<'_>, labels: &[(&str, &str)]) {
        let mut count = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = bound_s(index);
            let labels = [labels, &[("le", bound.as_str())]].concat();
            family.suffixed("_bucket", &labels, count);
        }
        family.suffixed("_sum", labels, self.sum_us.load(Relaxed) as f64 / 1e6);
        family.suffixed("_count", labels, count);
    }
}

/// The first bucket whose bound is not below.
fn bucket(us: u64) -> usize {
    (0..BOUNDS).find(|index| us <= FIRST_US << index).unwrap_or(BOUNDS)
}

fn bound_s(index: usize) -> String {
    if index == BOUNDS { "+Inf".into() } else { ((FIRST_US << index) as f64 / 1e6).to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Exposition, Kind};
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_ends_at_or_after_it() {
        let cases = [(0, 0), (100, 0), (101, 1), (200, 1), (6_553_600, 16), (6_553_601, 17)];
        for (us, expected) in cases {
            assert_eq!(bucket(us), expected, "{us}");
        }
        assert_eq!(
            (bound_s(0), bound_s(16), bound_s(17)),
            ("0.0001".into(), "6.5536".into(), "+Inf".into())
        );
    }

    #[test]
    fn buckets_accumulate() {
        let histogram = Histogram::default();
        for us in [50, 150, 10_000_000] {
            histogram.record(us);
        }
        let mut out = Exposition::default();
        histogram.render(&mut out.family("t", "", Kind::Histogram), &[("model", "m")]);
        let text = out.finish();
        for line in [
            "t_bucket{model=\"m\",le=\"0.0001\"} 1",
            "t_bucket{model=\"m\",le=\"0.0002\"} 2",
            "t_bucket{model=\"m\",le=\"6.5536\"} 2",
            "t_bucket{model=\"m\",le=\"+Inf\"} 3",
            "t_sum{model=\"m\"} 10.0002",
            "t_count{model=\"m\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
