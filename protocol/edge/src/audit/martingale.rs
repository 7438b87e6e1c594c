//! Is the mean of a stream of numbers between 0 and 1 still at most a bound? Watched for ever, with
//! a stated probability of ever crying wolf.
//!
//! A gambler who bets `lambda` that the next number `x` lies above the bound `m` multiplies her
//! money by `1 + lambda (x - m)`. While the mean of each number, whatever came before it, is at most
//! `m`, her money is a nonnegative supermartingale, so by Ville's inequality (1939) it ever reaches
//! `1 / alpha` with a probability of at most `alpha`: Waudby-Smith and Ramdas, "Estimating means of
//! bounded random variables by betting" (arXiv:2010.09686; JRSS B 2024), section 4.
//!
//! Two mixtures keep that property and make it quick. *Which bet?* Money is divided over bets that
//! are the best ones for a mean of [`TIMES`] the bound. *Since when?* A change after a long good time
//! finds a gambler who has lost all. So part of the money is kept back for each moment, and enters
//! the game then: `g(t) = 1/ln(e+t-1) - 1/ln(e+t)`, which sums up to 1, and of which the t-th part
//! shrinks about as `1/(t ln^2 t)`: a change that comes late is found a little later, not never.

use serde::{Deserialize, Serialize};
use std::f64::consts::E;

/// The means that are bet on, as multiples of the bound.
const TIMES: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 8.0, 14.0];
/// No bet is made on a mean above this: it would lose all with the first 0.
const MEAN_MAX: f64 = 0.9;

/// The evidence against one bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Martingale {
    bound: f64,
    observed: u64,
    /// The money in the game, by bet.
    stakes: [f64; TIMES.len()],
}

impl Martingale {
    /// No evidence yet that the mean is above `bound`, which lies between 0 and 1.
    pub fn new(bound: f64) -> Self {
        Self { bound: bound.clamp(1e-6, MEAN_MAX), observed: 0, stakes: [0.0; TIMES.len()] }
    }

    /// Takes the next number in, which lies between 0 and 1.
    pub fn observe(&mut self, number: f64) {
        let number = if number.is_nan() { 1.0 } else { number.clamp(0.0, 1.0) };
        self.observed += 1;
        let entering =
            (kept_back(self.observed - 1) - kept_back(self.observed)) / TIMES.len() as f64;
        for (stake, times) in self.stakes.iter_mut().zip(TIMES) {
            let factor = 1.0 + bet(self.bound, times) * (number - self.bound);
            // Beyond any use: it must not become infinite, which would not be written down again.
            *stake = ((*stake + entering) * factor).min(1e100);
        }
    }

    /// The money of the gambler who began with 1: evidence of `1 / alpha` is an alarm at level
    /// `alpha`.
    pub fn evidence(&self) -> f64 {
        self.stakes.iter().sum::<f64>() + kept_back(self.observed)
    }

    /// How many numbers were observed.
    pub fn observed(&self) -> u64 {
        self.observed
    }

    /// What is tested.
    pub fn bound(&self) -> f64 {
        self.bound
    }
}

/// What is not in the game after so many numbers.
fn kept_back(observed: u64) -> f64 {
    1.0 / (E + observed as f64).ln()
}

/// The bet that grows fastest where numbers are 0 or 1 with this mean (Kelly's).
fn bet(bound: f64, times: f64) -> f64 {
    let mean = (bound * times).min(MEAN_MAX.max(bound));
    (mean - bound) / (bound * (1.0 - bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers between 0 and 1 from a seed (SplitMix64, Steele, Lea and Flood, 2014).
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The number of the observation with which the evidence reaches 100, if it does.
    fn alarm(bound: f64, seed: u64, length: u64, mean: impl Fn(u64) -> f64) -> Option<u64> {
        let (mut martingale, mut state) = (Martingale::new(bound), seed);
        (1..=length).find(|t| {
            martingale.observe(f64::from(uniform(&mut state) < mean(*t)));
            martingale.evidence() >= 100.0
        })
    }

    #[test]
    fn at_the_very_bound_few_runs_ever_cry_wolf() {
        for bound in [0.01, 0.05, 0.3] {
            let alarms =
                (0..1_000).filter(|seed| alarm(bound, *seed, 1_000, |_| bound).is_some()).count();
            // 1 % of 1,000, and what chance adds to it with a probability of 1 %: 19.
            assert!(alarms <= 19, "{alarms} at {bound}");
        }
    }

    #[test]
    fn a_change_is_found_also_late() {
        for (before, most) in [(0, 90), (1_000, 130), (10_000, 150)] {
            let mean = |t| if t <= before { 0.01 } else { 0.2 };
            let mut delays: Vec<u64> = (0..25)
                .filter_map(|seed| alarm(0.02, seed, before + 2_000, mean))
                .map(|at| at.saturating_sub(before))
                .collect();
            delays.sort_unstable();
            assert!(delays[12] <= most, "{delays:?} after {before}");
        }
    }

    proptest! {
        /// Whatever was observed, a number whose mean is the bound leaves the expected evidence as it
        /// is, and one whose mean lies below makes it less.
        #[test]
        fn evidence_is_a_supermartingale(
            bound in 0.001f64..0.6,
            past in prop::collection::vec(any::<bool>(), 0..100),
            share in 0.0f64..=1.0,
        ) {
            let mut martingale = Martingale::new(bound);
            past.iter().for_each(|wrong| martingale.observe(f64::from(*wrong)));
            let after = |number| {
                let mut next = martingale.clone();
                next.observe(number);
                next.evidence()
            };
            let mean = bound * share;
            let expected = mean * after(1.0) + (1.0 - mean) * after(0.0);
            prop_assert!(after(0.0) >= 0.0 && after(f64::NAN) >= after(0.5));
            prop_assert!(expected <= martingale.evidence() * (1.0 + 1e-9));
        }
    }
}
