//! How surprising it is that the devices with the new version do worse than the others.
//!
//! The devices that got it first were drawn at random within their stratum. So if the version changes nothing, each
//! way to draw them was as likely as any other, and the sum of their ranks among all devices of the stratum has a
//! known distribution: no assumption about how a measure is spread, how much a device differs from its neighbour, or how
//! its requests depend on each other. (Wilcoxon 1945; over strata van Elteren 1960, here without his weights; exact and
//! conditional on ties as in Streitberg and Röhmel 1986.)

/// So many devices are ranked at most on each side, over all strata: enough to see what matters, and bounded work. The
/// first ones of each stratum are taken, so callers put them in an order that says nothing.
pub(super) const RANKED_MAX: usize = 64;

/// The measures of one stratum; larger is worse.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stratum {
    /// Of the devices with the new version.
    pub(super) treated: Vec<f64>,
    /// Of the others.
    pub(super) control: Vec<f64>,
}

/// How many devices of each of so many strata are ranked.
fn share(strata: usize) -> usize {
    (RANKED_MAX / strata.max(1)).max(4)
}

/// The chance that devices drawn at random would rank as badly as these or worse, if the version changed nothing: from
/// the exact distribution of the summed ranks. 1 where there is nobody to compare.
pub(super) fn worse_by_chance(strata: &[Stratum]) -> f64 {
    let comparable = |s: &&Stratum| !s.treated.is_empty() && !s.control.is_empty();
    let strata: Vec<&Stratum> = strata.iter().filter(comparable).collect();
    let most = share(strata.len());
    let mut observed = 0_usize;
    let mut spread = vec![1.0];
    for stratum in strata {
        let treated = &stratum.treated[..stratum.treated.len().min(most)];
        let control = &stratum.control[..stratum.control.len().min(most)];
        let (ranks, sum) = doubled_ranks(treated, control);
        observed += sum;
        spread = convolved(&spread, &sums_of(&ranks, treated.len()));
    }
    spread[observed.min(spread.len())..].iter().sum::<f64>().min(1.0)
}

/// The smallest chance that so many devices can show at all: a canary that is too small can prove nothing.
pub(super) fn smallest_chance(sizes: &[(usize, usize)]) -> f64 {
    let most = share(sizes.iter().filter(|(treated, control)| treated.min(control) > &0).count());
    let one = |&(treated, control): &(usize, usize)| {
        let (t, c) = (treated.min(most), control.min(most));
        let ways = |i: usize| count(c + i) / count(i);
        if c == 0 { 1.0 } else { (1..=t).map(ways).product::<f64>().recip() }
    };
    sizes.iter().map(one).product()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// Twice the rank of each value among all, so that the mean rank of ties is whole; and the sum over the treated.
fn doubled_ranks(treated: &[f64], control: &[f64]) -> (Vec<usize>, usize) {
    let marked = treated.iter().map(|v| (*v, true)).chain(control.iter().map(|v| (*v, false)));
    let mut all: Vec<(f64, bool)> = marked.collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut sum, mut start) = (Vec::with_capacity(all.len()), 0, 0);
    for ties in all.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let rank = 2 * start + ties.len() + 1; // first + last, counted from 1
        ranks.extend(std::iter::repeat_n(rank, ties.len()));
        sum += rank * ties.iter().filter(|(_, is_treated)| *is_treated).count();
        start += ties.len();
    }
    (ranks, sum)
}

/// The chance of each sum, when `drawn` of these ranks are drawn at random.
fn sums_of(ranks: &[usize], drawn: usize) -> Vec<f64> {
    let most: usize = ranks.iter().rev().take(drawn).sum();
    // chance[k][s]: that k of the ranks so far were drawn, with sum s. One rank after the other is drawn or not, as
    // often as it is among all ways to draw, so that everything stays a chance and nothing overflows.
    let mut chance = vec![vec![0.0; most + 1]; drawn + 1];
    chance[0][0] = 1.0;
    for (seen, &rank) in ranks.iter().enumerate() {
        let left = count(ranks.len() - seen);
        for k in (0..=drawn.min(seen)).rev() {
            let is_drawn = count(drawn - k) / left;
            let (below, above) = chance.split_at_mut(k + 1);
            if let Some(next) = above.first_mut() {
                for (sum, p) in below[k].iter().enumerate().filter(|(_, p)| **p > 0.0) {
                    if let Some(cell) = next.get_mut(sum + rank) {
                        *cell += p * is_drawn;
                    }
                }
            }
            below[k].iter_mut().for_each(|p| *p *= 1.0 - is_drawn);
        }
    }
    chance.pop().unwrap_or_default()
}

fn convolved(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate().filter(|(_, x)| **x > 0.0) {
        for (j, y) in b.iter().enumerate() {
            out[i + j] += x * y;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stratum(treated: &[f64], control: &[f64]) -> Stratum {
        Stratum { treated: treated.to_vec(), control: control.to_vec() }
    }

    /// All ways to draw, one by one.
    fn by_enumeration(treated: &[f64], control: &[f64]) -> f64 {
        let (ranks, observed) = doubled_ranks(treated, control);
        let (mut all, mut worse) = (0.0, 0.0);
        for mask in 0_u32..1 << ranks.len() {
            if mask.count_ones() as usize == treated.len() {
                let sum: usize =
                    (0..ranks.len()).filter(|i| mask >> i & 1 == 1).map(|i| ranks[i]).sum();
                all += 1.0;
                worse += f64::from(u8::from(sum >= observed));
            }
        }
        worse / all
    }

    #[test]
    fn the_worst_of_all_draws_has_the_smallest_chance() {
        let p = worse_by_chance(&[stratum(&[9.0, 8.0], &[1.0, 2.0, 3.0, 4.0])]);
        assert!((p - 1.0 / 15.0).abs() < 1e-12, "{p}");
        assert!((smallest_chance(&[(2, 4)]) - p).abs() < 1e-12);
    }

    #[test]
    fn nobody_to_compare_with_proves_nothing() {
        assert_eq!(worse_by_chance(&[]).to_bits(), 1.0_f64.to_bits());
        assert_eq!(worse_by_chance(&[stratum(&[9.0], &[])]).to_bits(), 1.0_f64.to_bits());
        assert!((smallest_chance(&[(3, 0)]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn strata_are_put_together() {
        let one = stratum(&[9.0], &[1.0, 2.0, 3.0]);
        let p = worse_by_chance(&[one.clone(), one]);
        assert!((p - 1.0 / 16.0).abs() < 1e-12, "{p}");
    }

    #[test]
    fn a_large_fleet_is_bounded_work_and_still_a_chance() {
        let control: Vec<f64> = (0..5000).map(f64::from).collect();
        let p = worse_by_chance(&[stratum(&[1e9; 400], &control)]);
        assert!(p > 0.0 && p < 1e-20, "{p}");
        assert!((worse_by_chance(&[stratum(&[0.5; 60], &[0.5; 60])]) - 1.0).abs() < 1e-9);
    }

    proptest::proptest! {
        #[test]
        fn the_distribution_is_that_of_all_draws(
            treated in proptest::collection::vec(0_u8..6, 1..5),
            control in proptest::collection::vec(0_u8..6, 1..8),
        ) {
            let values = |of: &[u8]| of.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let (treated, control) = (values(&treated), values(&control));
            let p = worse_by_chance(&[stratum(&treated, &control)]);
            let exact = by_enumeration(&treated, &control);
            proptest::prop_assert!((p - exact).abs() < 1e-9, "{} {}", p, exact);
        }
    }
}
