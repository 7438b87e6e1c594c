//! Which score, with which temperatures and which map to a confidence.

use protocol::manifest::{ConfidenceRule, Score};

use super::fit::{self, Logistic};
use super::{Example, plain};
use crate::confidence::score_of;

/// The score that is taken where none is chosen, at a temperature of 1: on the tasks of `cargo xtask
/// bench cascade` no other defers clearly less.
const STANDARD: Score = Score::ProbabilityMargin;
/// The same for sequences.
const STANDARD_OF_SEQUENCES: Score = Score::MeanToken;
/// Items of one most probable class from which on it may have a temperature of its own.
const CLASS_ITEMS: usize = 100;
/// How many standard errors another score must be better than the standard.
const CLEARLY: f64 = 2.0;

/// The rule. What is fitted to choose comes from `fitted`, the choice from `selection`; then all is
/// fitted anew to both. Without a selection nothing is chosen.
pub(super) fn rule(fitted: &[&Example], selection: &[&Example]) -> ConfidenceRule {
    let standard = standard(fitted);
    if selection.is_empty() {
        return mapped(standard, vec![1.0], fitted);
    }
    let by_class = temperatures_by_class(fitted)
        .is_some_and(|each| loss(&each, selection) < loss(&one_temperature(fitted), selection));
    let fit = |examples: &[&Example]| match temperatures_by_class(examples) {
        Some(each) if by_class => each,
        _ => one_temperature(examples),
    };
    let both = [fitted, selection].concat();
    match choose(&fit(fitted), fitted, selection) {
        Some(chosen) => mapped(chosen, fit(&both), &both),
        None => mapped(standard, vec![1.0], &both),
    }
}

fn are_sequences(examples: &[&Example]) -> bool {
    examples.first().is_some_and(|e| e.sequence.is_some())
}

fn standard(examples: &[&Example]) -> Score {
    if are_sequences(examples) { STANDARD_OF_SEQUENCES } else { STANDARD }
}

/// A score with its map; with none where that would turn it round.
fn mapped(score: Score, temperatures: Vec<f32>, examples: &[&Example]) -> ConfidenceRule {
    let mapped = map(score, &temperatures, examples);
    match mapped.slope > 0.0 {
        true => mapped,
        false => ConfidenceRule { temperatures, ..plain(score) },
    }
}

/// The best score at fitted temperatures, if it is clearly better than the standard.
fn choose(temperatures: &[f32], fitted: &[&Example], selection: &[&Example]) -> Option<Score> {
    let errors: Vec<bool> = selection.iter().map(|e| e.is_error()).collect();
    let read = |score, temperatures: &[f32]| -> Vec<f64> {
        selection.iter().map(|e| raw(score, temperatures, e)).collect()
    };
    let scores = match are_sequences(fitted) {
        true => &Score::OF_SEQUENCES[..],
        false => &Score::OF_ITEMS[..],
    };
    let standard = read(standard(fitted), &[1.0]);
    let usable = |score: &Score| map(*score, temperatures, fitted).slope > 0.0;
    let usable = scores.iter().copied().filter(usable);
    let gains = usable.map(|score| (gain(&standard, &read(score, temperatures), &errors), score));
    let best = gains.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 > CLEARLY).then_some(best.1)
}

#[allow(clippy::cast_possible_truncation)] // a temperature
fn temperature(examples: &[&Example]) -> f32 {
    fit::temperature(examples.iter().map(|e| (e.logits.as_slice(), e.truth))) as f32
}

/// Of a sequence no token's true class is known, so that nothing can be fitted.
fn one_temperature(examples: &[&Example]) -> Vec<f32> {
    if are_sequences(examples) { vec![1.0] } else { vec![temperature(examples)] }
}

/// One for each most probable class, if there are enough items of each.
fn temperatures_by_class(examples: &[&Example]) -> Option<Vec<f32>> {
    let first = examples.first().filter(|e| e.sequence.is_none());
    let classes = first.map_or(0, |e| e.logits.len());
    let of_class = |class| {
        let own: Vec<&Example> = examples.iter().filter(|e| e.edge() == class).copied().collect();
        (own.len() >= CLASS_ITEMS).then(|| temperature(&own))
    };
    (0..classes).map(of_class).collect::<Option<Vec<f32>>>().filter(|each| each.len() > 2)
}

/// How badly temperatures explain the right classes.
fn loss(temperatures: &[f32], examples: &[&Example]) -> f64 {
    let of = |e: &&Example| {
        let own = temperatures.get(e.edge()).unwrap_or(&temperatures[0]);
        fit::nll(&e.logits, e.truth, f64::from(*own)).min(1e3)
    };
    examples.iter().map(of).sum()
}

fn raw(kind: Score, temperatures: &[f32], example: &Example) -> f64 {
    let own = temperatures.get(example.edge()).or(temperatures.first()).copied().unwrap_or(1.0);
    let score = score_of(kind, &example.logits, example.classes(), f64::from(own));
    score.unwrap_or(f64::NEG_INFINITY)
}

/// A score with its map to the probability that the edge is right.
fn map(score: Score, temperatures: &[f32], fitted: &[&Example]) -> ConfidenceRule {
    let items: Vec<(f64, bool)> =
        fitted.iter().map(|e| (raw(score, temperatures, e), e.is_right())).collect();
    let Logistic { slope, offset } = Logistic::fit(&items);
    ConfidenceRule { score, temperatures: temperatures.to_vec(), slope, offset }
}

/// How many standard errors `other` separates errors from the rest better than `standard` does: the
/// difference of their areas under the curve, and its deviation by DeLong, DeLong and Clarke-Pearson
/// (1988). 0 where there is nothing to compare.
fn gain(standard: &[f64], other: &[f64], errors: &[bool]) -> f64 {
    let (a, b) = (Placements::of(standard, errors), Placements::of(other, errors));
    let difference =
        |a: &[f64], b: &[f64]| -> Vec<f64> { b.iter().zip(a).map(|(b, a)| b - a).collect() };
    let of_errors = difference(&a.of_errors, &b.of_errors);
    let of_rest = difference(&a.of_rest, &b.of_rest);
    if of_errors.len() < 2 || of_rest.len() < 2 {
        return 0.0;
    }
    let (mean, of_mean) = mean_with_variance(&of_errors);
    let deviation = (of_mean + mean_with_variance(&of_rest).1).sqrt();
    if deviation > 0.0 { mean / deviation } else { 0.0 }
}

/// For each error, the share of the rest that is surer than it; for each of the rest, the share of
/// errors that it is surer than. The mean of either is the area under the curve.
struct Placements {
    of_errors: Vec<f64>,
    of_rest: Vec<f64>,
}

impl Placements {
    fn of(scores: &[f64], errors: &[bool]) -> Self {
        let split = |wanted: bool| -> Vec<f64> {
            let of = scores.iter().zip(errors).filter(|(_, error)| **error == wanted);
            of.map(|(score, _)| *score).collect()
        };
        let (low, high) = (split(true), split(false));
        let above = |low: f64, high: f64| match high.total_cmp(&low) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        let share = |sum: f64, of: usize| sum / of.max(1) as f64;
        let of_error = |l: &f64| share(high.iter().map(|h| above(*l, *h)).sum(), high.len());
        let of_right = |h: &f64| share(low.iter().map(|l| above(*l, *h)).sum(), low.len());
        Self {
            of_errors: low.iter().map(of_error).collect(),
            of_rest: high.iter().map(of_right).collect(),
        }
    }
}

/// The mean, and the variance of the mean.
fn mean_with_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, squares / (n - 1.0) / n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::random::Random;

    #[test]
    fn a_better_score_is_told_from_luck() {
        let mut random = Random::new(3);
        let errors: Vec<bool> = (0..500).map(|_| random.share() < 0.1).collect();
        let mut noisy = |by: f64| -> Vec<f64> {
            errors.iter().map(|e| f64::from(!*e) + by * random.share()).collect()
        };
        let (good, poor) = (noisy(1.5), noisy(6.0));
        let (alike, too) = (noisy(3.0), noisy(3.0));
        assert!(gain(&poor, &good, &errors) > 3.0);
        assert!(gain(&good, &poor, &errors) < -3.0);
        assert!(gain(&alike, &too, &errors).abs() < 3.0);
        assert_eq!(gain(&good, &good, &errors), 0.0);
        assert_eq!(gain(&good[..3], &poor[..3], &[false; 3]), 0.0);
    }
}
