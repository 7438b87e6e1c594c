//! Rules that are calibrated again and again on other draws, and judged on what is known.

use models::calibrate::empirical::{Item, choose};
use models::calibrate::learn_then_test::{Outcomes, Test};
use models::calibrate::random::Random;
use models::calibrate::{Example, Options, calibrate};
use models::confidence::confidence;
use protocol::manifest::{ConfidenceRule, Score, Truth};

use super::rules::{
    Outcome, decide, quantile, sedna_cross_entropy, sedna_score, smallest_deferral,
    tested_threshold,
};
use super::task::Task;

/// With which probability bounds hold.
pub(super) const CONFIDENCE: f64 = 0.95;

/// Items drawn with replacement.
fn draw(random: &mut Random, pool: &[Example], items: usize) -> Vec<usize> {
    (0..items).map(|_| random.below(pool.len())).collect()
}

fn options(risk: f64, seed: u64) -> Options {
    Options { risk, confidence: CONFIDENCE, truth: Truth::Labels, seed }
}

/// A rule's mean over draws, on the test set.
pub(super) struct Mean {
    pub(super) name: &'static str,
    pub(super) at: Outcome,
}

/// Every rule on the test set, the mean over draws of the calibration data.
pub(super) fn on_test(task: &Task, risk: f64, draws: u64, items: usize) -> Vec<Mean> {
    let mut random = Random::new(1);
    let mut sums: Vec<Mean> = Vec::new();
    for seed in 0..draws {
        let drawn = draw(&mut random, task.calibration(), items);
        let drawn: Vec<&Example> = drawn.into_iter().map(|i| &task.calibration()[i]).collect();
        for (place, (name, at)) in one_draw(task, risk, seed, &drawn).into_iter().enumerate() {
            if sums.len() == place {
                sums.push(Mean { name, at: Outcome::default() });
            }
            sums[place].at.accuracy += at.accuracy / draws as f64;
            sums[place].at.deferral += at.deferral / draws as f64;
        }
    }
    sums
}

fn one_draw(task: &Task, risk: f64, seed: u64, drawn: &[&Example]) -> Vec<(&'static str, Outcome)> {
    let test = task.test();
    let above = |threshold: Option<f32>| {
        let threshold = threshold.unwrap_or(f32::INFINITY);
        decide(test, |_, e| e.plain_confidence() < threshold)
    };
    let ours = match calibrate(drawn, &options(risk, seed)) {
        Ok(found) => {
            let rule = found.rule.unwrap_or_else(plain);
            decide(test, |_, e| confidence(&rule, &e.logits) < Some(found.threshold))
        }
        Err(_) => decide(test, |_, _| true),
    };
    let outcomes = Outcomes::new(drawn.iter().map(|e| (e.plain_confidence(), e.is_error())));
    let exact = tested_threshold(&outcomes, Test::ClopperPearson, (risk, CONFIDENCE));
    let items: Vec<Item> = drawn
        .iter()
        .map(|e| Item {
            confidence: e.plain_confidence(),
            edge_correct: e.is_right(),
            cloud_correct: e.cloud == e.truth,
        })
        .collect();
    let observed = choose(&items, 0.005).ok().map(|chosen| chosen.threshold);
    let as_many = |read: fn(&Example) -> f64| {
        let mut values: Vec<f64> = drawn.iter().map(|e| read(e)).collect();
        let threshold = quantile(&mut values, ours.deferral);
        decide(test, |_, e| read(e) < threshold)
    };
    vec![
        ("Outrigger, bounded", ours),
        ("Outrigger, max_drop 0.5 points observed", above(observed)),
        ("Clopper-Pearson on max-softmax", above(exact)),
        ("max-softmax below 0.9", above(Some(0.9))),
        ("Sedna threshold 0.5", decide(test, |_, e| sedna_score(e) < 0.5)),
        ("Sedna cross-entropy 0.5", decide(test, |_, e| sedna_cross_entropy(e) < 0.5)),
        ("Sedna threshold, as many deferred", as_many(sedna_score)),
        ("Sedna cross-entropy, as many deferred", as_many(sedna_cross_entropy)),
    ]
}

fn plain() -> ConfidenceRule {
    ConfidenceRule { score: Score::MaxSoftmax, temperatures: vec![1.0], slope: 1.0, offset: 0.0 }
}

/// How often a bound was broken, and how much was deferred for it.
pub(super) struct Bounded {
    pub(super) method: &'static str,
    pub(super) risk: f64,
    /// Draws whose rule has a higher risk on the pool.
    pub(super) violations: usize,
    /// Draws without a rule; they defer everything.
    pub(super) without: usize,
    pub(super) deferral: f64,
    /// The least deferral that keeps the risk, of all scores.
    pub(super) smallest: f64,
}

/// What a threshold does on the whole pool: deferral and risk.
fn judge(pool: &Outcomes, threshold: Option<f32>) -> (f64, f64) {
    let Some(threshold) = threshold else { return (1.0, 0.0) };
    let at = pool.at(threshold);
    let (accepted, errors) = (at.accepted as f64, at.errors as f64);
    (1.0 - accepted / pool.items().len() as f64, errors / accepted.max(1.0))
}

const METHODS: [(&str, Option<Test>); 4] = [
    ("Outrigger", None),
    ("Clopper-Pearson", Some(Test::ClopperPearson)),
    ("Hoeffding", Some(Test::Hoeffding)),
    ("Bentkus", Some(Test::Bentkus)),
];

/// All methods at all risks, on the same draws from all examples, judged on all examples.
pub(super) fn on_pool(task: &Task, risks: &[f64], draws: u64, items: usize) -> Vec<Bounded> {
    let pool = &task.examples;
    let plain_pool = Outcomes::new(pool.iter().map(|e| (e.plain_confidence(), e.is_error())));
    let mut rows: Vec<Bounded> = Vec::new();
    for risk in risks {
        let best = Score::OF_ITEMS.map(|score| smallest_deferral(pool, score, *risk));
        let smallest = best.into_iter().fold(1.0, f64::min);
        rows.extend(METHODS.iter().map(|(method, _)| {
            let (risk, violations, without, deferral) = (*risk, 0, 0, 0.0);
            Bounded { method, risk, violations, without, deferral, smallest }
        }));
    }
    let mut random = Random::new(2);
    for seed in 0..draws {
        let drawn = draw(&mut random, pool, items);
        let drawn: Vec<&Example> = drawn.into_iter().map(|i| &pool[i]).collect();
        let outcomes = Outcomes::new(drawn.iter().map(|e| (e.plain_confidence(), e.is_error())));
        let mut ruled = Ruled::default();
        for (place, row) in rows.iter_mut().enumerate() {
            let (deferral, risk) = match METHODS[place % METHODS.len()].1 {
                None => ruled.judge(&drawn, pool, row.risk, seed),
                Some(test) => {
                    let found = tested_threshold(&outcomes, test, (row.risk, CONFIDENCE));
                    judge(&plain_pool, found)
                }
            };
            row.violations += usize::from(risk > row.risk);
            row.without += usize::from(deferral >= 1.0);
            row.deferral += deferral / draws as f64;
        }
    }
    rows
}

/// What the last rule says to the pool: at other risks the same draw has the same rule.
#[derive(Default)]
struct Ruled(Option<(ConfidenceRule, Outcomes)>);

impl Ruled {
    fn judge(&mut self, drawn: &[&Example], pool: &[Example], risk: f64, seed: u64) -> (f64, f64) {
        let Ok(found) = calibrate(drawn, &options(risk, seed)) else { return (1.0, 0.0) };
        let rule = found.rule.unwrap_or_else(plain);
        if self.0.as_ref().is_none_or(|(known, _)| *known != rule) {
            let read = |e: &Example| (confidence(&rule, &e.logits).unwrap_or(0.0), e.is_error());
            let outcomes = Outcomes::new(pool.iter().map(read));
            self.0 = Some((rule, outcomes));
        }
        self.0.as_ref().map_or((1.0, 0.0), |(_, pool)| judge(pool, Some(found.threshold)))
    }
}
