//! Histograms whose buckets grow: a range of eight decades in some dozens of numbers, each within 4.5 % of what was
//! measured. OpenTelemetry, "Metrics data model", exponential histograms.

use crate::wire;
use std::collections::BTreeMap;

/// Eight buckets for each doubling: base = 2^(1/8).
pub const SCALE: i32 = 3;
/// Buckets that one histogram may have; what is beyond counts in the outermost.
const BUCKETS_MAX: i32 = 512;

/// One in the making.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    buckets: BTreeMap<i32, u64>,
    zeros: u64,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Histogram {
    /// Counts a value; what is no positive number counts as zero.
    pub fn record(&mut self, value: f64) {
        let value = if value.is_finite() && value > 0.0 { value } else { 0.0 };
        match self.count {
            0 => (self.min, self.max) = (value, value),
            _ => (self.min, self.max) = (self.min.min(value), self.max.max(value)),
        }
        self.count += 1;
        self.sum += value;
        match value {
            0.0 => self.zeros += 1,
            _ => *self.buckets.entry(bucket(value)).or_default() += 1,
        }
    }

    /// Counts the values of one that was sent, too. Buckets of a finer scale fall together, those of a coarser one count
    /// as their last.
    pub fn merge(&mut self, sent: &wire::Histogram) {
        if sent.count == 0 {
            return;
        }
        for (index, count) in (sent.offset..).zip(&sent.buckets) {
            *self.buckets.entry(rescaled(index, sent.scale)).or_default() += count;
        }
        self.min = if self.count == 0 { sent.min } else { self.min.min(sent.min) };
        self.max = if self.count == 0 { sent.max } else { self.max.max(sent.max) };
        self.zeros += sent.zeros;
        self.count += sent.count;
        self.sum += sent.sum;
    }

    /// Bytes of memory that its buckets take, about.
    pub fn size_bytes(&self) -> usize {
        self.buckets.len() * 32
    }

    /// How many values it has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// As it is sent; nothing where nothing was counted.
    pub fn to_wire(&self) -> Option<wire::Histogram> {
        if self.count == 0 {
            return None;
        }
        let offset = self.buckets.keys().next().copied().unwrap_or(0);
        let last = self.buckets.keys().next_back().copied().unwrap_or(offset);
        let at = |index| self.buckets.get(&index).copied().unwrap_or(0);
        let buckets = match self.buckets.is_empty() {
            true => Vec::new(),
            false => (offset..=last).map(at).collect(),
        };
        let Self { zeros, count, sum, min, max, .. } = *self;
        Some(wire::Histogram { scale: SCALE, offset, buckets, zeros, count, sum, min, max })
    }
}

/// The bucket of a positive value: above base^i, and at most base^(i + 1).
#[allow(clippy::cast_possible_truncation)] // bounded in the same expression
fn bucket(value: f64) -> i32 {
    let of_doubling = f64::from(1 << SCALE);
    let index = (value.log2() * of_doubling).ceil() - 1.0;
    index.clamp(-f64::from(BUCKETS_MAX / 2), f64::from(BUCKETS_MAX / 2)) as i32
}

/// The bucket at [`SCALE`] of a bucket at another scale.
fn rescaled(index: i32, scale: i32) -> i32 {
    match scale - SCALE {
        finer @ 0..=30 => index >> finer,
        coarser @ -30..0 => ((index + 1) << -coarser) - 1,
        _ => index,
    }
}

/// Reads from one that was sent.
impl wire::Histogram {
    /// The value below which a share `q` (0 to 1) of all lies: the upper end of its bucket, and no more than the
    /// largest; `None` of an empty one.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut below = self.zeros;
        if below >= rank {
            return Some(0.0);
        }
        let base = 2f64.powf(2f64.powi(-self.scale));
        for (index, count) in (self.offset..).zip(&self.buckets) {
            below += count;
            if below >= rank {
                return Some(base.powi(index + 1).min(self.max));
            }
        }
        Some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_no_histogram_and_no_number_is_zero() {
        assert_eq!(Histogram::default().to_wire(), None);
        let mut histogram = Histogram::default();
        [0.0, -1.0, f64::NAN, f64::INFINITY].into_iter().for_each(|v| histogram.record(v));
        let sent = histogram.to_wire().unwrap();
        assert_eq!((sent.zeros, sent.count, sent.sum, sent.max), (4, 4, 0.0, 0.0));
        assert_eq!(sent.quantile(0.99), Some(0.0));
    }

    #[test]
    fn merged_histograms_have_the_quantiles_of_all_their_values() {
        let mut all = Histogram::default();
        let mut merged = Histogram::default();
        for device in 1..=10 {
            let mut own = Histogram::default();
            for i in 1..=100 {
                own.record(f64::from(device * i));
                all.record(f64::from(device * i));
            }
            merged.merge(&own.to_wire().unwrap());
        }
        let (all, merged) = (all.to_wire().unwrap(), merged.to_wire().unwrap());
        for share in [0.01, 0.5, 0.99, 1.0] {
            assert_eq!(merged.quantile(share), all.quantile(share));
        }
    }

    #[test]
    fn other_scales_fall_into_the_bucket_that_holds_their_upper_end() {
        assert_eq!(
            [rescaled(7, SCALE), rescaled(7, SCALE + 1), rescaled(7, SCALE - 1)],
            [7, 3, 15]
        );
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_a_bucket(mut values in prop::collection::vec(1e-3f64..1e8, 1..200), q in 0.0f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            let sent = histogram.to_wire().unwrap();
            prop_assert_eq!(sent.count, values.len() as u64);
            prop_assert_eq!(sent.buckets.iter().sum::<u64>(), values.len() as u64);
            values.sort_by(f64::total_cmp);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let (exact, read) = (values[rank - 1], sent.quantile(q).unwrap());
            prop_assert!(read >= exact * 0.999_999 && read <= exact * 1.0906, "{} for {}", read, exact);
        }
    }
}
