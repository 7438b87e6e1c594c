//! Which trial is the best, and why.

use serde::Serialize;

use super::{Goal, Options, Trial};
use crate::quantize::{Recipe, Scheme};

/// Speeds and sizes that are nearer than this are alike: the better answers decide then, which are the same in every
/// run, and not the noise of a clock.
pub(super) const ALIKE: f64 = 0.95;
/// A build must be that much faster than float to be worth its loss...
const WORTH: f64 = 1.02;
/// ...or as fast, and at most that long beside it.
const SHORT: f64 = 0.9;

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The trial; none means that the float model is kept.
    pub trial: Option<usize>,
    /// Why, with the figures.
    pub reason: String,
}

/// Chooses among the trials that meet the target; the float model has that many bytes.
pub(super) fn choose(trials: &[Trial], options: &Options, float_bytes: u64) -> Choice {
    let target = options.target_drop;
    // Where a device's times decide, what was not timed there, or did not run, cannot be chosen.
    let there = trials.iter().any(|trial| trial.elsewhere.is_some());
    let may = |t: &Trial| t.drop <= target && (!there || t.elsewhere.is_some());
    let good: Vec<usize> = (0..trials.len()).filter(|i| may(&trials[*i])).collect();
    let pays = |i: &usize| {
        let short = trials[*i].size_bytes as f64 <= float_bytes as f64 * SHORT;
        options.goal == Goal::Size || speed(trials, *i) >= if short { 1.0 } else { WORTH }
    };
    let paying: Vec<usize> = good.iter().copied().filter(pays).collect();
    let keep = |reason: String| Choice { trial: None, reason: format!("keep float: {reason}") };
    let figures = |i: usize| {
        let trial = &trials[i];
        format!(
            "{}: {:.2}x the speed{}, {:.3} MB, loses {:.4} of at most {target}",
            trial.recipe.describe(),
            trial.decisive().speedup,
            if there { " on the device" } else { "" },
            trial.size_bytes as f64 / 1e6,
            trial.drop
        )
    };
    let Some(best) = best(trials, &paying, options.goal) else {
        let nearest = trials.iter().min_by(|a, b| a.drop.total_cmp(&b.drop));
        return keep(match (fastest(trials, &good), nearest) {
            (Some(i), _) => {
                format!("nothing pays here, neither in time nor in size ({})", figures(i))
            }
            (None, Some(t)) => format!("the best build loses {:.4}, more than {target}", t.drop),
            (None, None) => "no build was tried: nothing to quantize, or no time for it".to_owned(),
        });
    };
    let what = match options.goal {
        Goal::Latency => "fastest",
        Goal::Size => "smallest",
    };
    let count = good.len();
    let reason = format!("the {what} of {count} builds that meet the target, {}", figures(best));
    Choice { trial: Some(best), reason }
}

/// The fastest of some.
fn fastest(trials: &[Trial], of: &[usize]) -> Option<usize> {
    of.iter().copied().max_by(|a, b| speed(trials, *a).total_cmp(&speed(trials, *b)))
}

/// The best by the goal; among those that are alike, the one that loses least.
fn best(trials: &[Trial], good: &[usize], goal: Goal) -> Option<usize> {
    let merit = |i: usize| merit(trials, i, goal);
    let most = good.iter().map(|i| merit(*i)).fold(0.0, f64::max);
    let alike = good.iter().copied().filter(|i| merit(*i) >= most * ALIKE);
    alike.min_by(|a, b| trials[*a].loses(&trials[*b]))
}

/// How good a trial is by the goal.
pub(super) fn merit(trials: &[Trial], trial: usize, goal: Goal) -> f64 {
    match goal {
        Goal::Latency => speed(trials, trial),
        Goal::Size => 1.0 / (trials[trial].size_bytes.max(1) as f64),
    }
}

/// Whether two builds differ by the numbers in their weights and scales alone: a runtime does the same work for
/// both. Channels of convolutions are evened out without a node more.
pub(super) fn same_graph(a: &Trial, b: &Trial) -> bool {
    let own = &a.recipe;
    let even = if own.scheme == Scheme::Static { own.even } else { b.recipe.even };
    let alike = Recipe { method: own.method, rounding: own.rounding, even, ..b.recipe.clone() };
    alike == *own && a.fused == b.fused
}

/// The median speed of all builds that are the same graph, measured in the same place: what they differ in
/// is noise.
fn speed(trials: &[Trial], trial: usize) -> f64 {
    let own = &trials[trial];
    let same = |other: &&Trial| {
        same_graph(own, other) && other.elsewhere.is_some() == own.elsewhere.is_some()
    };
    let mut speeds: Vec<f64> = trials.iter().filter(same).map(|t| t.decisive().speedup).collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied().unwrap_or(0.0)
}

/// The trials that no other beats in size, speed and quality at once.
pub fn front(trials: &[Trial]) -> Vec<usize> {
    let beats = |a: &Trial, b: &Trial| {
        let no_worse = a.size_bytes <= b.size_bytes
            && a.latency.speedup >= b.latency.speedup
            && a.drop <= b.drop;
        let better =
            a.size_bytes < b.size_bytes || a.latency.speedup > b.latency.speedup || a.drop < b.drop;
        no_worse && better
    };
    let beaten = |i: &usize| trials.iter().any(|other| beats(other, &trials[*i]));
    (0..trials.len()).filter(|i| !beaten(i)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::histogram::Method;
    use crate::measure::Latency;

    pub(in crate::search) fn trial(speedup: f64, size_bytes: u64, drop: f64) -> Trial {
        let latency = Latency { speedup, ..Latency::default() };
        // Each a graph of its own, told by what stays in float.
        let float = [format!("{speedup}")].into();
        Trial {
            recipe: Recipe { float, ..Recipe::default() },
            size_bytes,
            quality: crate::measure::Quality::default(),
            drop,
            latency,
            elsewhere: None,
            fused: crate::fused::Fused::default(),
            seconds: 0.0,
        }
    }

    /// The float model's bytes.
    const FLOAT: u64 = 100;

    fn check(trials: &[Trial], goal: Goal, expected: Option<usize>) {
        let choice = choose(trials, &Options { goal, ..Options::default() }, FLOAT);
        assert_eq!(choice.trial, expected, "{}", choice.reason);
    }

    #[test]
    fn the_target_comes_first_then_the_goal_then_quality() {
        let trials = [
            trial(3.0, 100, 0.02),
            trial(2.0, 120, 0.004),
            trial(1.98, 110, 0.001),
            trial(1.2, 90, 0.0),
        ];
        check(&trials, Goal::Latency, Some(2));
        check(&trials, Goal::Size, Some(3));
        assert_eq!(front(&trials), [0, 1, 2, 3]);
    }

    #[test]
    fn noise_between_equal_graphs_does_not_choose() {
        let mut trials = [trial(2.0, 100, 0.001), trial(2.9, 100, 0.002), trial(2.1, 100, 0.003)];
        for (trial, method) in trials.iter_mut().zip([Method::MinMax, Method::Mse, Method::Entropy])
        {
            trial.recipe = Recipe { method, ..Recipe::default() };
        }
        check(&trials, Goal::Latency, Some(0));
    }

    #[test]
    fn the_times_of_the_device_decide() {
        let mut trials = [trial(3.0, 100, 0.001), trial(2.0, 100, 0.001), trial(9.0, 100, 0.001)];
        for (trial, speedup) in trials.iter_mut().zip([1.1, 1.6]) {
            trial.elsewhere = Some(Latency { speedup, ..Latency::default() });
        }
        check(&trials, Goal::Latency, Some(1));
        let choice = choose(&trials, &Options::default(), FLOAT);
        assert!(choice.reason.contains("1.60x the speed on the device"), "{}", choice.reason);
        trials[1].elsewhere = None; // it did not run there
        check(&trials, Goal::Latency, Some(0));
    }

    #[test]
    fn float_is_kept_where_nothing_pays() {
        check(&[trial(0.99, 10, 0.0)], Goal::Latency, None);
        check(&[trial(1.01, 95, 0.0)], Goal::Latency, None);
        check(&[trial(1.01, 30, 0.0)], Goal::Latency, Some(0));
        check(&[trial(1.03, 95, 0.0)], Goal::Latency, Some(0));
        check(&[trial(0.8, 10, 0.0)], Goal::Size, Some(0));
        check(&[trial(5.0, 10, 0.1)], Goal::Size, None);
        check(&[], Goal::Latency, None);
    }
}
