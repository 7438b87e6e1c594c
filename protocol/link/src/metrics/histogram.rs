//! A histogram with fixed buckets, each twice the one before, in atomics.

use super::exposition::Family;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Beyond the last bound is `+Inf`.
const BOUNDS: usize = 17;

/// What is recorded, and how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Microseconds, shown in seconds: from 0.1 ms to 0.1 ms * 2^16 = 6.6 s.
    Micros,
    /// Numbers of things: from 1 to 2^16.
    Things,
}

impl Scale {
    /// The upper bound of the first bucket.
    fn first(self) -> u64 {
        match self {
            Self::Micros => 100,
            Self::Things => 1,
        }
    }

    fn shown(self, value: u64) -> f64 {
        match self {
            Self::Micros => value as f64 / 1e6,
            Self::Things => value as f64,
        }
    }
}

/// How long or how large something was, many times.
#[derive(Debug)]
pub struct Histogram {
    scale: Scale,
    /// The last one is `+Inf`.
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(Scale::Micros)
    }
}

impl Histogram {
    /// An empty one.
    pub fn new(scale: Scale) -> Self {
        Self { scale, buckets: Default::default(), sum: AtomicU64::new(0) }
    }

    /// It happened once more.
    pub fn record(&self, value: u64) {
        self.buckets[bucket(self.scale, value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Adds itself to a family. The buckets are what they were when each was read, and the count is theirs,
    /// so that all agree while others record.
    pub fn render(&self, family: &mut Family<'_>, labels: &[(&str, &str)]) {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let bounds = (0..BOUNDS).map(|index| bound(self.scale, index)).collect();
        family.histogram(labels, bounds, counts, self.scale.shown(self.sum.load(Relaxed)));
    }
}

/// The first bucket whose bound is not below.
fn bucket(scale: Scale, value: u64) -> usize {
    (0..BOUNDS).find(|index| value <= scale.first() << index).unwrap_or(BOUNDS)
}

fn bound(scale: Scale, index: usize) -> f64 {
    scale.shown(scale.first() << index)
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Exposition, Kind};
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_ends_at_or_after_it() {
        let cases = [(0, 0), (100, 0), (101, 1), (200, 1), (6_553_600, 16), (6_553_601, 17)];
        for (us, expected) in cases {
            assert_eq!(bucket(Scale::Micros, us), expected, "{us}");
        }
        let bounds = |scale| [0, 16].map(|index| bound(scale, index).to_string());
        assert_eq!(bounds(Scale::Micros), ["0.0001", "6.5536"]);
        assert_eq!(bounds(Scale::Things), ["1", "65536"]);
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
