//! How well confidences match shares of right answers.

use protocol::manifest::{Reliability, ReliabilityBin};

use super::binomial::as_f64;

/// Bins of equal width, as in Guo et al. (arXiv:1706.04599).
const BINS: usize = 15;

/// From each item's confidence before and after calibration, and whether it is right.
pub(super) fn reliability(items: &[(f32, f32, bool)]) -> Reliability {
    let before: Vec<_> = items.iter().map(|(before, _, right)| (*before, *right)).collect();
    let after: Vec<_> = items.iter().map(|(_, after, right)| (*after, *right)).collect();
    let bins = bins(&after);
    Reliability { ece_before: ece(&self::bins(&before)), ece_after: ece(&bins), bins }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of BINS
fn bins(items: &[(f32, bool)]) -> Vec<ReliabilityBin> {
    let mut sums = [(0.0, 0u64, 0u64); BINS];
    for (confidence, right) in items {
        let bin = ((f64::from(*confidence) * BINS as f64) as usize).min(BINS - 1);
        let (sum, rights, count) = &mut sums[bin];
        *sum += f64::from(*confidence);
        *rights += u64::from(*right);
        *count += 1;
    }
    let filled = sums.into_iter().filter(|(_, _, count)| *count > 0);
    let bin = |(sum, rights, items)| ReliabilityBin {
        confidence: sum / as_f64(items),
        accuracy: as_f64(rights) / as_f64(items),
        items,
    };
    filled.map(bin).collect()
}

/// Expected calibration error: the mean of `|accuracy - confidence|`, by items.
fn ece(bins: &[ReliabilityBin]) -> f64 {
    let items: u64 = bins.iter().map(|bin| bin.items).sum();
    let gap = |bin: &ReliabilityBin| (bin.accuracy - bin.confidence).abs() * as_f64(bin.items);
    bins.iter().map(gap).sum::<f64>() / as_f64(items.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_the_gap() {
        // Four at 0.9 of which three are right, and one at 1 that is right; before, all said 1.
        let item = |right| (1.0, 0.9, right);
        let items = [item(true), item(true), item(true), item(false), (1.0, 1.0, true)];
        let found = reliability(&items);
        assert!((found.ece_after - 4.0 / 5.0 * 0.15).abs() < 1e-6, "{found:?}");
        assert!((found.ece_before - 0.2).abs() < 1e-9);
        let counts: Vec<u64> = found.bins.iter().map(|bin| bin.items).collect();
        assert_eq!(counts, [4, 1]);
        assert_eq!(reliability(&[]).ece_after, 0.0);
    }
}
