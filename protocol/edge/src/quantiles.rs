//! Quantiles of a stream whose law changes: a histogram with logarithmic buckets, in which old
//! values count for less and less.
//!
//! Placement asks "how long will this take in 19 of 20 cases", of latencies that change with the
//! place, the hour and the load. P² (Jain and Chlamtac, 1985) keeps five markers for one quantile
//! and cannot forget; a window of samples costs memory and a sort. Buckets that grow by the fourth
//! root of two know every quantile to within 19 %, always on the side of "later", for 1 KB, and
//! forgetting is one multiplication: new values weigh more instead of old ones less ("forward
//! decay", Cormode, Shkapenyuk, Srivastava and Xu, ICDE 2009). A value counts half after
//! [`HALF_LIFE_VALUES`] newer ones, and half after [`HALF_LIFE`].

use std::time::{Duration, Instant};

/// After so many newer values a value counts half.
pub const HALF_LIFE_VALUES: u32 = 128;
/// After so long a value counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(300);

const PER_OCTAVE: f64 = 4.0;
/// The last bucket ends at 2^27 us, two minutes, and holds all beyond.
const BUCKETS: usize = 27 * 4 + 1;
/// Beyond this weight (2^32) all weights are scaled back.
const EXPONENT_MAX: f64 = 32.0;

/// The decaying histogram of some quantity; microseconds, for latencies.
#[derive(Debug, Clone)]
pub struct Quantiles {
    weights: Vec<f64>,
    total: f64,
    /// The weight of a value now is two to the power of this.
    exponent: f64,
    last: Option<Instant>,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { weights: vec![0.0; BUCKETS], total: 0.0, exponent: 0.0, last: None }
    }
}

impl Quantiles {
    /// Takes a value in.
    pub fn record(&mut self, value: u64, now: Instant) {
        let age = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.exponent += 1.0 / f64::from(HALF_LIFE_VALUES);
        self.exponent += (age.as_secs_f64() / HALF_LIFE.as_secs_f64()).min(2.0 * EXPONENT_MAX);
        self.last = Some(now);
        if self.exponent > EXPONENT_MAX {
            let scale = (-self.exponent).exp2();
            self.weights.iter_mut().for_each(|weight| *weight *= scale);
            self.total *= scale;
            self.exponent = 0.0;
        }
        let weight = self.exponent.exp2();
        self.weights[bucket(value)] += weight;
        self.total += weight;
    }

    /// At least so much as this share of the values, which is between 0 and 1; nothing before the
    /// first value.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        if self.total <= 0.0 {
            return None;
        }
        let wanted = self.total * share;
        let mut below = 0.0;
        let reached = self.weights.iter().position(|weight| {
            below += weight;
            *weight > 0.0 && below >= wanted
        });
        Some(bound(reached.unwrap_or(BUCKETS - 1)))
    }

    /// The share of the values that lie in lower buckets than this one; 0 before the first value.
    pub fn rank(&self, value: u64) -> f64 {
        if self.total <= 0.0 {
            return 0.0;
        }
        self.weights[..bucket(value)].iter().sum::<f64>() / self.total
    }

    /// How many values of now the remembered ones are worth.
    pub fn evidence(&self) -> f64 {
        self.total / self.exponent.exp2()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to BUCKETS
fn bucket(value: u64) -> usize {
    let index = ((value.max(1) as f64).log2() * PER_OCTAVE).ceil();
    (index as usize).min(BUCKETS - 1)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most 2^27
fn bound(bucket: usize) -> u64 {
    (bucket as f64 / PER_OCTAVE).exp2().ceil() as u64
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_known_before_the_first_value() {
        let quantiles = Quantiles::default();
        assert_eq!((quantiles.quantile(0.5), quantiles.rank(7)), (None, 0.0));
        assert_eq!(quantiles.evidence(), 0.0);
    }

    #[test]
    fn what_changed_is_noticed_and_what_is_old_forgotten() {
        let mut now = Instant::now();
        let mut quantiles = Quantiles::default();
        let mut take = |quantiles: &mut Quantiles, value, count, pause| {
            for _ in 0..count {
                now += pause;
                quantiles.record(value, now);
            }
        };
        take(&mut quantiles, 1_000, 1_000, Duration::from_millis(10));
        take(&mut quantiles, 9_000, 100, Duration::from_millis(10));
        assert!(quantiles.quantile(0.95).unwrap() >= 9_000, "the newest tenth is seen");
        assert!(quantiles.quantile(0.2).unwrap() < 1_200, "the old is not forgotten yet");
        take(&mut quantiles, 9_000, 5, Duration::from_secs(1_000));
        assert!(quantiles.quantile(0.1).unwrap() >= 9_000, "an hour later it is");
        assert!(quantiles.evidence() < 3.0);
    }

    proptest! {
        /// The answer is never below the true quantile of what was taken in, nor a fifth above it.
        #[test]
        fn within_a_bucket_of_the_truth(
            mut values in prop::collection::vec(1u64..100_000_000, 1..60),
            share in 0.01f64..1.0,
        ) {
            let now = Instant::now();
            let mut quantiles = Quantiles::default();
            values.iter().for_each(|value| quantiles.record(*value, now));
            // Equal weights but for the slow decay over 60 values, which moves the rank by one or two.
            values.sort_unstable();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // up to 60
            let rank = |share: f64| (share.max(0.0) * values.len() as f64).ceil() as usize;
            let index = |share: f64| rank(share).clamp(1, values.len()) - 1;
            let found = quantiles.quantile(share).unwrap();
            let (low, high) = (values[index(share - 0.15)], values[index(share + 0.15)]);
            prop_assert!(found >= low, "{found} {low}");
            prop_assert!(found as f64 <= high as f64 * 1.19 + 1.0, "{found} {high}");
        }

        #[test]
        fn ranks_and_quantiles_agree(values in prop::collection::vec(1u64..1_000_000, 1..40)) {
            let now = Instant::now();
            let mut quantiles = Quantiles::default();
            values.iter().for_each(|value| quantiles.record(*value, now));
            for share in [0.1, 0.5, 0.9] {
                let value = quantiles.quantile(share).unwrap();
                prop_assert!(quantiles.rank(value / 2) <= share);
            }
        }
    }
}
