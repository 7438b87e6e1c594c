//! Maximum likelihood for the few parameters of a rule.

use crate::confidence::{largest, logistic};

/// How far a temperature may lie from 1, as a logarithm's standard deviation: with little data it stays
/// near 1.
const TEMPERATURE_SPREAD: f64 = 1.0;
/// Where a temperature is looked for, as logarithms: 0.02 to 50.
const TEMPERATURE_RANGE: (f64, f64) = (-3.9, 3.9);

/// The temperature with the least negative log-likelihood of the true classes, by golden-section search.
/// Items whose true class the model rules out say nothing about it, and are left out.
pub(super) fn temperature<'i>(items: impl Iterator<Item = (&'i [f64], usize)>) -> f64 {
    let items: Vec<_> = items.filter(|(logits, truth)| logits[*truth].is_finite()).collect();
    let loss = |ln_t: f64| {
        let likelihood: f64 = items.iter().map(|(z, truth)| nll(z, *truth, ln_t.exp())).sum();
        likelihood + 0.5 * (ln_t / TEMPERATURE_SPREAD).powi(2)
    };
    golden_section(loss, TEMPERATURE_RANGE).exp()
}

/// `-ln softmax(logits / temperature)[truth]`.
pub(super) fn nll(logits: &[f64], truth: usize, temperature: f64) -> f64 {
    let max = largest(logits).map_or(0.0, |(_, max)| max);
    let sum: f64 = logits.iter().map(|z| ((z - max) / temperature).exp()).sum();
    sum.ln() - (logits[truth] - max) / temperature
}

/// The minimum of a function with one, between two ends (Kiefer 1953).
fn golden_section(f: impl Fn(f64) -> f64, (mut low, mut high): (f64, f64)) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut f_left, mut f_right) = (f(left), f(right));
    while high - low > 1e-4 {
        if f_left <= f_right {
            (high, right, f_right) = (right, left, f_left);
            left = high - ratio * (high - low);
            f_left = f(left);
        } else {
            (low, left, f_left) = (left, right, f_right);
            right = low + ratio * (high - low);
            f_right = f(right);
        }
    }
    f64::midpoint(low, high)
}

/// `P(y) = logistic(slope * x + offset)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Logistic {
    pub(super) slope: f64,
    pub(super) offset: f64,
}

impl Logistic {
    /// Platt's map (1999) by Newton's method with step halving (Lin, Lin and Weng 2007). His targets,
    /// `(n + 1) / (n + 2)` instead of 1, keep the slope finite where the score separates the classes.
    pub(super) fn fit(items: &[(f64, bool)]) -> Self {
        let yes = items.iter().filter(|(_, y)| *y).count() as f64;
        let no = items.len() as f64 - yes;
        let (high, low) = ((yes + 1.0) / (yes + 2.0), 1.0 / (no + 2.0));
        let points: Vec<(f64, f64)> =
            items.iter().map(|(x, y)| (bounded(*x), if *y { high } else { low })).collect();
        let mut at = Self { slope: 0.0, offset: ((yes + 1.0) / (no + 1.0)).ln() };
        let mut loss = at.loss(&points);
        for _ in 0..100 {
            let Some(step) = at.newton_step(&points) else { break };
            let Some((next, next_loss)) = at.descend(step, loss, &points) else { break };
            let gained = loss - next_loss;
            (at, loss) = (next, next_loss);
            if gained < 1e-9 {
                break;
            }
        }
        at
    }

    pub(super) fn at(self, x: f64) -> f64 {
        logistic(self.slope * bounded(x) + self.offset)
    }

    fn loss(self, points: &[(f64, f64)]) -> f64 {
        let of = |(x, target): &(f64, f64)| {
            let z = self.slope * x + self.offset;
            z.max(0.0) - z * target + (-z.abs()).exp().ln_1p()
        };
        points.iter().map(of).sum()
    }

    /// The gradient, times the inverse of the (slightly raised) Hessian.
    fn newton_step(self, points: &[(f64, f64)]) -> Option<(f64, f64)> {
        let (mut gx, mut g1, mut hxx, mut hx1, mut h11) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for (x, target) in points {
            let p = logistic(self.slope * x + self.offset);
            let (error, weight) = (p - target, p * (1.0 - p));
            gx += error * x;
            g1 += error;
            hxx += weight * x * x;
            hx1 += weight * x;
            h11 += weight;
        }
        let determinant = hxx * h11 - hx1 * hx1;
        let step = ((h11 * gx - hx1 * g1) / determinant, (hxx * g1 - hx1 * gx) / determinant);
        (step.0.is_finite() && step.1.is_finite()).then_some(step)
    }

    /// Goes along the step, halved until the loss falls.
    fn descend(self, step: (f64, f64), loss: f64, points: &[(f64, f64)]) -> Option<(Self, f64)> {
        let mut scale = 1.0;
        for _ in 0..30 {
            let slope = self.slope - scale * step.0;
            let next = Self { slope, offset: self.offset - scale * step.1 };
            let next_loss = next.loss(points);
            if next_loss < loss {
                return Some((next, next_loss));
            }
            scale /= 2.0;
        }
        None
    }
}

/// Scores of saturated softmaxes are infinite; beyond this they tell nothing more to a fit.
fn bounded(score: f64) -> f64 {
    score.clamp(-1e3, 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::random::Random;

    /// Logits that are `heat` times too large, with labels drawn from what they should be.
    fn overheated(heat: f64, items: usize) -> Vec<(Vec<f64>, usize)> {
        let mut random = Random::new(5);
        let item = |_| {
            let true_logits: Vec<f64> = (0..4).map(|_| 4.0 * random.share()).collect();
            let sum: f64 = true_logits.iter().map(|z| z.exp()).sum();
            let mut left = random.share() * sum;
            let drawn = true_logits.iter().position(|z| {
                left -= z.exp();
                left <= 0.0
            });
            (true_logits.iter().map(|z| z * heat).collect(), drawn.unwrap_or(3))
        };
        (0..items).map(item).collect()
    }

    #[test]
    fn the_temperature_is_found_again() {
        for heat in [0.5, 1.0, 3.0] {
            let items = overheated(heat, 20_000);
            let found = temperature(items.iter().map(|(z, truth)| (z.as_slice(), *truth)));
            assert!((found / heat - 1.0).abs() < 0.05, "{heat} {found}");
        }
        let none: [(&[f64], usize); 0] = [];
        assert!((temperature(none.into_iter()) - 1.0).abs() < 1e-3, "without data it is 1");
    }

    #[test]
    fn the_logistic_map_is_found_again() {
        let mut random = Random::new(6);
        let items: Vec<(f64, bool)> = (0..50_000)
            .map(|_| {
                let x = 6.0 * random.share() - 2.0;
                (x, random.share() < logistic(1.5 * x - 0.7))
            })
            .collect();
        let found = Logistic::fit(&items);
        assert!((found.slope - 1.5).abs() < 0.05 && (found.offset + 0.7).abs() < 0.05, "{found:?}");
    }

    #[test]
    fn separable_and_one_sided_data_stay_finite() {
        let separable: Vec<(f64, bool)> =
            (0..100).map(|i| (f64::from(i) - 50.0, i >= 50)).collect();
        let one_sided: Vec<(f64, bool)> = (0..100).map(|i| (f64::from(i), true)).collect();
        let infinite = [(f64::INFINITY, true), (f64::NEG_INFINITY, false), (0.0, true)];
        for items in [&separable[..], &one_sided[..], &infinite[..], &[]] {
            let map = Logistic::fit(items);
            assert!(map.slope.is_finite() && map.offset.is_finite(), "{map:?}");
            assert!((0.0..=1.0).contains(&map.at(f64::INFINITY)));
        }
        assert!(Logistic::fit(&separable).slope > 0.1);
    }
}
