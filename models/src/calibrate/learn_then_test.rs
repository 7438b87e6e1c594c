//! Thresholds that are tested until one fails.
//!
//! Learn then test (Angelopoulos, Bates, Candès, Jordan, Lei, arXiv:2110.01052): "of the answers that
//! this threshold accepts, a share above the risk is wrong" is a hypothesis, and a threshold may be used
//! when its hypothesis is refuted. The thresholds stand in an order that the tested data did not choose,
//! strictest first, and testing stops at the first that is not refuted: then the probability of ever
//! using one whose hypothesis is true is at most `1 - confidence`, however many there are and however
//! they depend on each other. Among the accepted items, which are independent draws, errors follow a
//! binomial distribution; so each test is exact.

use super::binomial::{as_f64, lower_tail, probability};

/// How evidence against a hypothesis is weighed. All are valid; they differ in how much data they need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Test {
    /// The binomial tail with part of its last step, by a coin between 0 and 1 that was thrown before:
    /// exactly the stated error, where the whole step leaves a part of it unused (Stevens 1950).
    Stevens {
        /// The coin, the same for all thresholds.
        coin: f64,
    },
    /// The binomial tail (Clopper and Pearson 1934).
    ClopperPearson,
    /// `exp(-n KL(errors / n, risk))` (Hoeffding 1963, theorem 1).
    Hoeffding,
    /// `e` times the binomial tail (Bentkus 2004), as for losses that may lie between 0 and 1.
    Bentkus,
}

impl Test {
    /// The probability that at most so much evidence against the risk would be found, were it above
    /// `risk`: `errors` of `accepted` items.
    pub fn p_value(self, errors: u64, accepted: u64, risk: f64) -> f64 {
        match self {
            Self::Stevens { coin } => {
                let below = match errors {
                    0 => 0.0,
                    _ => lower_tail(errors - 1, accepted, risk),
                };
                below + coin * probability(errors, accepted, risk)
            }
            Self::ClopperPearson => lower_tail(errors, accepted, risk),
            Self::Hoeffding => hoeffding(errors, accepted, risk),
            Self::Bentkus => (std::f64::consts::E * lower_tail(errors, accepted, risk)).min(1.0),
        }
    }
}

fn hoeffding(errors: u64, accepted: u64, risk: f64) -> f64 {
    let n = as_f64(accepted);
    let mean = as_f64(errors) / n.max(1.0);
    if mean >= risk {
        return 1.0;
    }
    let wrong = if errors == 0 { 0.0 } else { mean * (mean / risk).ln() };
    let right = (1.0 - mean) * ((1.0 - mean) / (1.0 - risk)).ln();
    (-n * (wrong + right)).exp()
}

/// Confidences of items, and which of them are errors, ready to be counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// Confidence, and whether accepting the item would be an error; by ascending confidence.
    items: Vec<(f32, bool)>,
    /// Confidences of errors, ascending.
    errors: Vec<f32>,
}

/// A threshold with what it accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tested {
    /// The least confidence.
    pub threshold: f32,
    /// How many items reach it.
    pub accepted: u64,
    /// How many of these are errors.
    pub errors: u64,
}

impl Outcomes {
    /// From each item's confidence, and whether accepting it would be an error.
    pub fn new(items: impl Iterator<Item = (f32, bool)>) -> Self {
        let mut items: Vec<(f32, bool)> = items.collect();
        items.sort_by(|a, b| a.0.total_cmp(&b.0));
        let errors = items.iter().filter(|(_, error)| *error).map(|(c, _)| *c).collect();
        Self { items, errors }
    }

    /// Confidence, and whether accepting the item would be an error; by ascending confidence.
    pub fn items(&self) -> &[(f32, bool)] {
        &self.items
    }

    /// What a threshold accepts.
    pub fn at(&self, threshold: f32) -> Tested {
        let accepted = self.items.len() - self.items.partition_point(|(c, _)| *c < threshold);
        let errors = self.errors.len() - self.errors.partition_point(|c| *c < threshold);
        Tested { threshold, accepted: accepted as u64, errors: errors as u64 }
    }
}

/// The last threshold before the first whose hypothesis is not refuted; `None` when that is the first.
/// `thresholds` must not depend on `outcomes`.
pub fn fixed_sequence(
    outcomes: &Outcomes,
    thresholds: &[f32],
    test: Test,
    (risk, confidence): (f64, f64),
) -> Option<Tested> {
    let tested = thresholds.iter().map(|threshold| outcomes.at(*threshold));
    tested.take_while(|t| test.p_value(t.errors, t.accepted, risk) <= 1.0 - confidence).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::random::Random;

    #[test]
    fn p_values_are_ordered_and_the_coin_fills_the_step() {
        for (errors, accepted, risk) in [(0, 700, 0.005), (12, 4000, 0.005), (60, 4000, 0.02)] {
            let p = |test: Test| test.p_value(errors, accepted, risk);
            let exact = p(Test::ClopperPearson);
            assert!(p(Test::Stevens { coin: 0.3 }) < exact);
            assert!(exact < p(Test::Hoeffding) && exact < p(Test::Bentkus));
            assert!((p(Test::Stevens { coin: 1.0 }) - exact).abs() < 1e-12);
        }
        for test in [Test::ClopperPearson, Test::Hoeffding, Test::Bentkus] {
            assert!(test.p_value(0, 0, 0.01) >= 0.05, "nothing accepted is no evidence");
        }
        // Over the coin, the randomised test rejects with exactly its level.
        let (n, risk, level) = (500u64, 0.01, 0.05);
        let rejects: f64 = (0..=n)
            .map(|k| {
                let below = if k == 0 { 0.0 } else { lower_tail(k - 1, n, risk) };
                let step = probability(k, n, risk);
                step * ((level - below) / step).clamp(0.0, 1.0)
            })
            .sum();
        assert!((rejects - level).abs() < 1e-12);
    }

    #[test]
    fn testing_stops_at_the_first_failure() {
        // 1,000 items; the surest 300 are right, then come three errors, then only right ones again.
        let item = |i: u16| (f32::from(1000 - i) / 1000.0, (300..303).contains(&i));
        let outcomes = Outcomes::new((0..1000).map(item));
        let at = |thresholds: &[f32]| {
            let found = fixed_sequence(&outcomes, thresholds, Test::ClopperPearson, (0.01, 0.95));
            found.map(|t| (t.accepted, t.errors))
        };
        assert_eq!(at(&[0.701]), Some((300, 0)));
        assert_eq!(at(&[0.701, 0.69, 0.001]), Some((300, 0)), "0.69 fails; all would pass");
        assert_eq!(at(&[0.001]), Some((1000, 3)));
        assert_eq!(at(&[0.9, 0.701]), None, "100 items cannot refute one percent");
        assert_eq!(at(&[]), None);
    }

    /// Draws from a known law, again and again: the share of draws whose threshold has a true risk above
    /// the bound stays below `1 - confidence`, and with the coin comes near it where the law jumps.
    #[test]
    fn the_bound_holds_as_often_as_it_says() {
        const DRAWS: u32 = 2000;
        let (risk, confidence) = (0.02, 0.9);
        // Confidence uniform on 0..1; errors only below `edge`, so that the true risk is known.
        let (edge, rate) = (0.5f32, 0.1);
        let true_risk = |t: f32| f64::from((edge - t).max(0.0)) * rate / f64::from(1.0 - t);
        let thresholds: Vec<f32> =
            (1..=100u8).map(|i| 1.0 - f32::from(i) / 100.0).skip(30).collect();
        let mut random = Random::new(1);
        for (test, least) in [(Test::ClopperPearson, 0), (Test::Stevens { coin: 0.0 }, 40)] {
            let mut violations = 0;
            for _ in 0..DRAWS {
                let items: Vec<(f32, bool)> = (0..800)
                    .map(|_| {
                        let confidence = random.narrow();
                        (confidence, confidence < edge && random.share() < rate)
                    })
                    .collect();
                let test = match test {
                    Test::Stevens { .. } => Test::Stevens { coin: random.share() },
                    other => other,
                };
                let outcomes = Outcomes::new(items.into_iter());
                let found = fixed_sequence(&outcomes, &thresholds, test, (risk, confidence));
                violations += u32::from(found.is_some_and(|t| true_risk(t.threshold) > risk));
            }
            // 10 % of 2,000 and four standard deviations.
            assert!((least..=254).contains(&violations), "{test:?}: {violations} of {DRAWS}");
        }
    }
}
