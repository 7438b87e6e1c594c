//! Rules that others use, written from their definitions, and what a decision costs.

use models::calibrate::Example;
use models::calibrate::binomial::fewest_without_error;
use models::calibrate::learn_then_test::{Outcomes, Test};
use models::confidence::score;
use protocol::manifest::Score;

/// What deciding about a set came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Share of right answers.
    pub(super) accuracy: f64,
    /// Share of deferred items.
    pub(super) deferral: f64,
}

/// From the number of items, of right answers and of deferred ones.
pub(super) fn outcome(items: usize, right: usize, deferred: usize) -> Outcome {
    let share = |count: usize| count as f64 / items.max(1) as f64;
    Outcome { accuracy: share(right), deferral: share(deferred) }
}

/// What it comes to when `defers` decides.
pub(super) fn decide(examples: &[Example], defers: impl Fn(usize, &Example) -> bool) -> Outcome {
    let (mut right, mut deferred) = (0, 0);
    for (index, example) in examples.iter().enumerate() {
        let defer = defers(index, example);
        deferred += usize::from(defer);
        right +=
            usize::from(if defer { example.cloud == example.truth } else { example.is_right() });
    }
    outcome(examples.len(), right, deferred)
}

/// Sedna's `ThresholdFilter`: hard where the mean of the results' scores lies below the threshold, 0.5
/// unless said. A classifier has one result, its class.
pub(super) fn sedna_score(example: &Example) -> f64 {
    f64::from(example.plain_confidence())
}

/// Sedna's `CrossEntropyFilter`: `1 + sum(p ln p) / ln(classes)`; hard below the threshold, 0.5 unless
/// said.
pub(super) fn sedna_cross_entropy(example: &Example) -> f64 {
    let odds = score(Score::Entropy, &example.logits, 1.0).unwrap_or(f64::NEG_INFINITY);
    1.0 / (1.0 + (-odds).exp())
}

/// The threshold below which a share of these values lies.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (share * values.len() as f64).round() as usize;
    values.get(place).copied().unwrap_or(f64::INFINITY)
}

/// The threshold by one kind of test on all items, at every confidence that occurs in them, from the
/// strictest that could succeed. That lets the data choose its thresholds, which flatters the rules that we
/// are compared with.
pub(super) fn tested_threshold(
    outcomes: &Outcomes,
    test: Test,
    (risk, confidence): (f64, f64),
) -> Option<f32> {
    let least = fewest_without_error(risk, confidence);
    let mut thresholds: Vec<f32> = outcomes.items().iter().map(|(c, _)| *c).collect();
    thresholds.dedup();
    let holds = |threshold: &f32| {
        let at = outcomes.at(*threshold);
        at.accepted >= least && test.p_value(at.errors, at.accepted, risk) <= 1.0 - confidence
    };
    let begun = thresholds.into_iter().rev().skip_while(|threshold| !holds(threshold));
    begun.take_while(holds).last()
}

/// The least deferral with which a share of at most `risk` of what is accepted are errors, by a score.
pub(super) fn smallest_deferral(examples: &[Example], kind: Score, risk: f64) -> f64 {
    let read = |e: &Example| score(kind, &e.logits, 1.0).unwrap_or(f64::NEG_INFINITY);
    let mut items: Vec<(f64, bool)> = examples.iter().map(|e| (read(e), e.is_error())).collect();
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut errors, mut accepted) = (0usize, 0usize);
    let mut most = 0;
    for equals in items.chunk_by(|a, b| a.0 == b.0) {
        accepted += equals.len();
        errors += equals.iter().filter(|(_, error)| *error).count();
        if errors as f64 <= risk * accepted as f64 {
            most = accepted;
        }
    }
    1.0 - most as f64 / items.len().max(1) as f64
}

/// Accuracy over deferral: the surest items stay, by a score.
pub(super) fn curve(examples: &[Example], read: impl Fn(&Example) -> f64) -> Vec<Outcome> {
    let mut order: Vec<(f64, &Example)> = examples.iter().map(|e| (read(e), e)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0)); // least sure first
    let mut right = examples.iter().filter(|e| e.is_right()).count();
    let mut curve = vec![outcome(examples.len(), right, 0)];
    for (index, (_, example)) in order.iter().enumerate() {
        right += usize::from(example.cloud == example.truth);
        right -= usize::from(example.is_right());
        curve.push(outcome(examples.len(), right, index + 1));
    }
    curve
}

/// The least deferral of a curve that comes within `drop` of an accuracy.
pub(super) fn within(curve: &[Outcome], accuracy: f64, drop: f64) -> Outcome {
    let goal = accuracy - drop - 1e-12;
    curve.iter().find(|at| at.accuracy >= goal).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(margin: f64, right: bool, cloud_right: bool) -> Example {
        let cloud = if cloud_right { 0 } else { 1 };
        let logits = if right { vec![margin, 0.0] } else { vec![0.0, margin] };
        Example { logits, sequence: None, truth: 0, cloud }
    }

    #[test]
    fn decisions_cost_what_they_cost() {
        let set = [example(3.0, true, true), example(2.0, false, true), example(1.0, true, false)];
        let all = |defer: bool| decide(&set, move |_, _| defer);
        assert!((all(false).accuracy - 2.0 / 3.0).abs() < 1e-12 && all(false).deferral == 0.0);
        assert!((all(true).accuracy - 2.0 / 3.0).abs() < 1e-12);
        let curve = curve(&set, sedna_score);
        let accuracies: Vec<f64> = curve.iter().map(|o| (o.accuracy * 3.0).round()).collect();
        assert_eq!(accuracies, [2.0, 1.0, 2.0, 2.0]);
        assert_eq!(within(&curve, 2.0 / 3.0, 0.0).deferral, 0.0);
        assert_eq!(smallest_deferral(&set, Score::Margin, 0.4), 0.0);
        assert!((smallest_deferral(&set, Score::Margin, 0.1) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn sednas_cross_entropy_is_one_for_certainty_and_zero_for_none() {
        assert!(sedna_cross_entropy(&example(60.0, true, true)) > 0.999);
        assert!(sedna_cross_entropy(&example(0.0, true, true)) < 1e-6);
        let p = 1.0 / (1.0 + f64::exp(-1.0));
        let by_definition = 1.0 + (p * p.ln() + (1.0 - p) * (1.0 - p).ln()) / 2f64.ln();
        assert!((sedna_cross_entropy(&example(1.0, true, true)) - by_definition).abs() < 1e-9);
    }
}
