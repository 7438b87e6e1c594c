//! Which thresholds are tested, in which order: chosen from other items than those that test them.
//!
//! From the strictest on: that of the known items' confidences at which the test is as good as sure to
//! succeed, by a smooth estimate of the errors. A stricter one would only be one more test that can
//! fail by bad luck. From there in small equal steps of the log-odds, because deferral is lost between
//! steps; at the end, everything is accepted.

use super::binomial::{fewest_without_error, lower_tail};
use super::fit::Logistic;
use super::learn_then_test::Outcomes;

/// From one threshold to the next, in log-odds.
const STEP: f64 = 0.005;
/// Below these log-odds (a confidence of a thousandth) only everything is left to accept.
const LEAST: f64 = -7.0;
/// How much less likely to succeed than the best start a stricter one may be.
const SLACK: f64 = 0.002;
/// How many times the estimated errors there may be, and how many more among the known: the estimate is
/// least sure where it rests on few, so a start there would often fail.
const DOUBT: (f64, f64) = (2.0, 0.5);

/// Thresholds for a test on `items` others, strictest first.
pub(super) fn thresholds(known: &Outcomes, items: usize, wanted: (f64, f64)) -> Vec<f32> {
    let Some((start, _)) = known.items().get(start(known, items, wanted)) else { return vec![0.0] };
    let first = log_odds(*start);
    let steps = (0u16..).map(|step| first - f64::from(step) * STEP);
    let mut thresholds = vec![*start];
    thresholds.extend(steps.skip(1).take_while(|x| *x > LEAST).map(from_log_odds));
    thresholds.push(0.0);
    thresholds.dedup();
    thresholds
}

/// The place of the first threshold among the known confidences.
fn start(known: &Outcomes, items: usize, (risk, confidence): (f64, f64)) -> usize {
    let points: Vec<(f64, bool)> =
        known.items().iter().map(|(c, error)| (log_odds(*c), *error)).collect();
    let estimate = Logistic::fit(&points);
    let mut expected = 0.0;
    let fewest = fewest_without_error(risk, confidence);
    let mut likely: Vec<(usize, f64)> = Vec::new();
    for (place, (x, _)) in points.iter().enumerate().rev() {
        expected += estimate.at(*x);
        let known = (points.len() - place) as f64;
        let accepted = to_count(known / points.len() as f64 * items as f64);
        if accepted >= fewest {
            let rate = ((DOUBT.0 * expected + DOUBT.1) / known).clamp(1e-9, 1.0 - 1e-9);
            let succeeds = lower_tail(allowed(accepted, risk, confidence), accepted, rate);
            likely.push((place, succeeds));
        }
    }
    let best = likely.iter().map(|(_, power)| *power).fold(0.0, f64::max);
    let strictest = likely.iter().find(|(_, power)| *power >= best * (1.0 - SLACK));
    strictest.map_or(0, |(place, _)| *place)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
fn to_count(items: f64) -> u64 {
    items as u64
}

/// The most errors that still refute `risk`; the tail grows with them, so it is bisected.
fn allowed(accepted: u64, risk: f64, confidence: f64) -> u64 {
    let refutes = |errors: u64| lower_tail(errors, accepted, risk) <= 1.0 - confidence;
    let (mut yes, mut no) = (0, accepted);
    while no - yes > 1 {
        let middle = yes.midpoint(no);
        match refutes(middle) {
            true => yes = middle,
            false => no = middle,
        }
    }
    yes
}

/// Confidences of exactly 0 and 1 have finite ones.
fn log_odds(confidence: f32) -> f64 {
    let share = f64::from(confidence).clamp(1e-12, 1.0 - 1e-12);
    (share / (1.0 - share)).ln()
}

#[allow(clippy::cast_possible_truncation)] // thresholds are f32
fn from_log_odds(x: f64) -> f32 {
    crate::confidence::logistic(x) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::random::Random;

    #[test]
    fn so_many_errors_refute() {
        for (accepted, risk) in [(598, 0.005), (700, 0.01), (4000, 0.005), (4000, 0.05)] {
            let most = allowed(accepted, risk, 0.95);
            assert!(lower_tail(most, accepted, risk) <= 0.05);
            assert!(lower_tail(most + 1, accepted, risk) > 0.05, "{accepted} {risk}");
        }
    }

    /// Where everything could be accepted, no start may be so strict that one unlucky item ends it.
    #[test]
    fn an_easy_bound_begins_where_it_does_not_hang_on_one_item() {
        let mut random = Random::new(4);
        let item = |_| (random.narrow(), random.share() < 0.02);
        let known = Outcomes::new((0..200).map(item));
        let first = thresholds(&known, 2800, (0.05, 0.95))[0];
        let accepted = to_count(f64::from(1.0 - first) * 2800.0);
        assert!(allowed(accepted, 0.05, 0.95) >= 5, "{accepted}");
    }

    #[test]
    fn from_strict_to_everything_and_begun_where_it_can_succeed() {
        let mut random = Random::new(2);
        let item = |_| {
            let confidence = random.narrow();
            (confidence, random.share() < 0.4 * f64::from(1.0 - confidence).powi(2))
        };
        let known = Outcomes::new((0..500).map(item));
        let thresholds = thresholds(&known, 4500, (0.01, 0.95));
        assert!(thresholds.windows(2).all(|pair| pair[0] > pair[1]), "strictest first");
        assert_eq!(thresholds.last(), Some(&0.0));
        assert!(thresholds.len() > 500);
        let accepted = 4500.0 * (1.0 - thresholds[0]);
        assert!((300.0..2000.0).contains(&accepted), "{accepted}");
        assert_eq!(super::thresholds(&Outcomes::new([].into_iter()), 9, (0.01, 0.95)), [0.0]);
    }
}
