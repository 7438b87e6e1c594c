//! What happens when the world changes: the demo pair on real images, which get darker, noisy, or
//! all of the kinds that are hard to tell apart, at a known moment.
//!
//! Both variants answer all images once, as they are and changed; calls are then drawn from these
//! answers by a seed, and watched by the very [`Audit`] that the agent uses. *Wrong* is an accepted
//! answer whose class is not the label where the cloud's is; *differs* is what a device can see.

mod answers;

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::network::Random;
use crate::statistics::median;
use answers::{Answer, Change, answers};
use edge::audit::{Audit, AuditPolicy};
use serde_json::json;

/// The threshold that `model.toml` leads to on the calibration images.
const THRESHOLD: f32 = 0.740_4;
/// Calls before the change.
const BEFORE: u64 = 20_000;
/// Calls after it at most.
const AFTER: u64 = 200_000;
/// Calls of a run without a change.
const CALM: u64 = 100_000;

/// How much is run.
#[derive(Debug, Clone, Copy)]
struct Amount {
    calm_runs: u64,
    drift_runs: u64,
}

/// Runs the bench.
///
/// # Errors
/// The models or images are not there.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let amount = match short {
        true => Amount { calm_runs: 100, drift_runs: 10 },
        false => Amount { calm_runs: 1_000, drift_runs: 100 },
    };
    let clean = answers(Change::None)?;
    let own = accepted_share(&clean, |answer| answer.differs);
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    // The hardest case of "no drift": the bound is exactly what these images show.
    for (bound, name) in [(own, "at what the images show"), (0.05, "the default")] {
        let (row, goal) = calm(&clean, bound, name, amount.calm_runs);
        rows.push(row);
        goals.extend(goal);
    }
    for change in Change::ALL {
        let changed = answers(change)?;
        rows.push(drift(&clean, &changed, change, own, amount.drift_runs));
    }
    Ok(BenchReport { name: "drift", rows, goals })
}

/// Of the accepted answers, the share for which this holds.
fn accepted_share(answers: &[Answer], holds: fn(&Answer) -> bool) -> f64 {
    let accepted = answers.iter().filter(|answer| answer.score >= THRESHOLD);
    let (mut all, mut held) = (0.0_f64, 0.0);
    for answer in accepted {
        all += 1.0;
        held += f64::from(holds(answer));
    }
    held / all.max(1.0)
}

/// One device that is asked.
struct Device<'a> {
    audit: Audit,
    policy: AuditPolicy,
    random: &'a mut Random,
    checks: u64,
}

impl Device<'_> {
    /// One call; whether its answer was accepted, and whether there was an alarm.
    fn call(&mut self, answer: &Answer) -> (bool, bool) {
        let random = &mut *self.random;
        let drawn = self.audit.draws(&self.policy, 0, || random.bits());
        let least = self.audit.raised().map_or(THRESHOLD, |raised| raised.max(THRESHOLD));
        if answer.score < least {
            return (false, false);
        }
        self.audit.accepted(answer.score);
        if !drawn {
            return (true, false);
        }
        self.checks += 1;
        let level = self.audit.level();
        (true, self.audit.checked(level, f64::from(answer.differs)).is_some())
    }
}

fn one<'a>(answers: &'a [Answer], random: &mut Random) -> &'a Answer {
    let index = random.below(answers.len() as u64);
    &answers[usize::try_from(index).unwrap_or(0)]
}

fn calm(clean: &[Answer], bound: f64, name: &str, runs: u64) -> (Row, Vec<Goal>) {
    let policy = AuditPolicy::default();
    let (mut alarmed, mut checks) = (0u64, 0u64);
    for seed in 0..runs {
        let (mut draws, mut random) = (Random::new(seed), Random::new(!seed));
        let audit = Audit::new(&policy, Some(bound), None);
        let mut device = Device { audit, policy, random: &mut random, checks: 0 };
        alarmed += u64::from((0..CALM).any(|_| device.call(one(clean, &mut draws)).1));
        checks += device.checks;
    }
    let row = Row(vec![
        ("no drift, bound", json!(name)),
        ("disagreement", json!(rounded(bound))),
        ("runs", json!(runs)),
        ("calls each", json!(CALM)),
        ("checks each", json!(checks / runs)),
        ("with any alarm", json!(alarmed)),
    ]);
    let most = allowance(runs, policy.false_alarm);
    let goals = vec![
        Goal::at_most("runs without drift that raise any alarm", most as f64, alarmed as f64),
        Goal::at_most("checks per call", 0.01, checks as f64 / (runs * CALM) as f64),
    ];
    (row, goals)
}

/// So many of `runs` have an event of this probability by chance, with a probability of 1 % for more.
fn allowance(runs: u64, probability: f64) -> u64 {
    let mut term = (1.0 - probability).powf(runs as f64); // none of them
    let (mut sum, mut count) = (term, 0);
    while sum < 0.99 {
        count += 1;
        term *= (runs - count + 1) as f64 / count as f64 * probability / (1.0 - probability);
        sum += term;
    }
    count
}

/// What was accepted in some time.
#[derive(Default)]
struct Tally {
    calls: u64,
    accepted: u64,
    wrong: u64,
}

impl Tally {
    fn take(&mut self, answer: &Answer, accepted: bool) {
        self.calls += 1;
        self.accepted += u64::from(accepted);
        self.wrong += u64::from(accepted && answer.wrong);
    }

    fn percent(&self) -> (f64, f64) {
        let share = |part: u64, whole: u64| rounded(100.0 * part as f64 / whole.max(1) as f64);
        (share(self.wrong, self.accepted), share(self.accepted, self.calls))
    }
}

fn drift(clean: &[Answer], changed: &[Answer], change: Change, bound: f64, runs: u64) -> Row {
    let policy = AuditPolicy::default();
    let (mut delays, mut levels, mut early) = (Vec::new(), Vec::new(), 0u64);
    let mut acts: [Tally; 3] = Default::default();
    for seed in 0..runs {
        let (mut draws, mut random) = (Random::new(seed), Random::new(!seed));
        let audit = Audit::new(&policy, Some(bound), None);
        let mut device = Device { audit, policy, random: &mut random, checks: 0 };
        for _ in 0..BEFORE {
            let answer = one(clean, &mut draws);
            let (accepted, alarm) = device.call(answer);
            early += u64::from(alarm);
            acts[0].take(answer, accepted);
        }
        let mut found = None;
        for call in 0..AFTER {
            let answer = one(changed, &mut draws);
            let act = 1 + usize::from(found.is_some());
            let (accepted, alarm) = device.call(answer);
            acts[act].take(answer, accepted);
            found = found.or(alarm.then_some(call + 1));
        }
        delays.extend(found.map(|call| call as f64));
        levels.push(f64::from(device.audit.level()));
    }
    let [before, until, after] = acts.map(|act| act.percent());
    let differs = accepted_share(changed, |answer| answer.differs);
    let found = delays.len();
    delays.sort_by(f64::total_cmp);
    let late = delays.get(found * 9 / 10).copied();
    Row(vec![
        ("change", json!(change.name())),
        ("differs, %", json!(rounded(100.0 * differs))),
        ("found", json!(format!("{found} of {runs}"))),
        ("calls until, median", json!(median(&delays))),
        ("calls until, p90", json!(late)),
        ("alarms", json!(median(&levels))),
        ("before it", json!(early)),
        ("wrong before, %", json!(before.0)),
        ("until found, %", json!(until.0)),
        ("after, %", json!(after.0)),
        ("accepted before, %", json!(before.1)),
        ("until found, % ", json!(until.1)),
        ("after, % ", json!(after.1)),
    ])
}

#[cfg(test)]
mod tests {
    use super::allowance;

    /// As `scipy.stats.binom.ppf(0.99, n, p)` gives them.
    #[test]
    fn the_allowance_is_the_binomial_quantile() {
        for (runs, probability, expected) in [(1_000, 0.01, 18), (500, 0.05, 37), (100, 0.01, 4)] {
            assert_eq!(allowance(runs, probability), expected, "{runs} {probability}");
        }
    }
}
