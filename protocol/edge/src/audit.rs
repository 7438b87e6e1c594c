//! Whether accepted answers are still as good as was said.
//!
//! A rule for accepting edge answers was chosen on yesterday's data. So a small random share of the
//! calls is *checked*: where the edge answer was accepted, the cloud is asked for the same input
//! afterwards, and whether the two disagree is observed. A [`Martingale`] weighs the observations
//! against the bound. When it raises an alarm, which it does in error with a probability of at most
//! [`AuditPolicy::false_alarm`] over the whole life of a bundle on a device, the rule is tightened at
//! once: the threshold rises to the median of the scores that were accepted lately, so that half of
//! them would be deferred; after [`LEVELS`] alarms nothing is accepted. The test then begins anew for
//! the new rule, with half of the error that was left. Only a new bundle, with a new calibration,
//! loosens the rule: that answers are good again cannot be known from answers that are not accepted.
//!
//! One of each [`CALLS_PER_CHECK`] calls is drawn, so that no more than 1 % can be checked; while a
//! roll-out looks, one of each [`CALLS_PER_CHECK_MIN`] at most. Which one does not depend on the
//! answer, so the observations are of all accepted answers alike. A check that finds no free cloud is
//! left out, which is counted.

mod martingale;

pub use martingale::Martingale;

use protocol::evidence::CALLS_PER_CHECK_MIN;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One call in so many may be checked at most.
pub const CALLS_PER_CHECK: u32 = 100;
/// After so many alarms nothing is accepted any more.
pub const LEVELS: u8 = 4;
/// So many accepted scores are remembered, for their median.
const RECENT_MAX: usize = 256;
/// With fewer of them an alarm stops acceptance altogether.
const RECENT_MIN: usize = 16;

/// How accepted answers are watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuditPolicy {
    /// One call in so many is drawn; 0 for none, less than [`CALLS_PER_CHECK`] counts as that.
    pub calls_per_check: u32,
    /// The share of accepted answers that may disagree with the cloud, where the bundle names none.
    pub disagreement: f64,
    /// The probability that a bundle that keeps its bound ever raises an alarm here.
    pub false_alarm: f64,
}

impl Default for AuditPolicy {
    fn default() -> Self {
        Self { calls_per_check: CALLS_PER_CHECK, disagreement: 0.05, false_alarm: 0.01 }
    }
}

/// The rule was tightened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alarm {
    /// How many alarms there were, with this one.
    pub level: u8,
    /// The evidence that raised it.
    pub evidence: f64,
    /// From now on the least score of an accepted answer; infinite when none is accepted.
    pub threshold: f32,
}

/// What is written down of an audit, and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The test that goes on.
    pub test: Martingale,
    /// Alarms so far.
    pub level: u8,
    /// The raised threshold; nothing where none was raised, or where nothing is accepted.
    pub raised: Option<f32>,
    /// Answers that were compared with the cloud's.
    pub checked: u64,
    /// Of these, how many disagreed; items of a request count in part.
    pub disagreed: f64,
}

/// The watch over one bundle's accepted answers.
#[derive(Debug, Clone)]
pub struct Audit {
    findings: Findings,
    false_alarm: f64,
    recent: VecDeque<f32>,
    /// Calls left of this hundred, and which of them is drawn.
    left: u32,
    drawn: u32,
}

impl Audit {
    /// A watch that goes on from what was written down, or begins. `bound` is the bundle's own, if
    /// it has one. What was found against another bound is not gone on from, but an alarm stays.
    pub fn new(policy: &AuditPolicy, bound: Option<f64>, saved: Option<Findings>) -> Self {
        let fresh = Martingale::new(bound.unwrap_or(policy.disagreement));
        let mut findings = saved.unwrap_or(Findings {
            test: fresh.clone(),
            level: 0,
            raised: None,
            checked: 0,
            disagreed: 0.0,
        });
        if findings.test.bound().to_bits() != fresh.bound().to_bits() {
            findings.test = fresh;
        }
        let false_alarm = policy.false_alarm.clamp(1e-9, 0.5);
        Self { findings, false_alarm, recent: VecDeque::new(), left: 0, drawn: 0 }
    }

    /// A call arrived; whether its answer is to be checked should it be accepted. A roll-out that looks may ask
    /// for one of fewer calls, where any is checked; 0 while none does. `entropy` gives a random number, which
    /// is wanted once in so many calls.
    pub fn draws(
        &mut self,
        policy: &AuditPolicy,
        asked: u32,
        entropy: impl FnOnce() -> u64,
    ) -> bool {
        if policy.calls_per_check == 0 {
            return false;
        }
        let usual = policy.calls_per_check.max(CALLS_PER_CHECK);
        let calls = if asked == 0 { usual } else { usual.min(asked.max(CALLS_PER_CHECK_MIN)) };
        if self.left == 0 || self.left > calls {
            self.left = calls;
            // The remainder of a 64-bit number favours no call by more than 2^-32.
            let drawn = entropy() % u64::from(self.left);
            self.drawn = u32::try_from(drawn).unwrap_or(0);
        }
        self.left -= 1;
        self.left == self.drawn
    }

    /// An edge answer with this score was accepted.
    pub fn accepted(&mut self, score: f32) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(score);
    }

    /// An answer that was accepted at this level was compared with the cloud's: 0 for the same, 1
    /// for another, between for a request of several items. What was accepted under an earlier
    /// rule says nothing of this one.
    pub fn checked(&mut self, level: u8, disagreement: f64) -> Option<Alarm> {
        if level != self.findings.level || self.accepts_nothing() {
            return None;
        }
        let findings = &mut self.findings;
        findings.checked += 1;
        findings.disagreed += disagreement.clamp(0.0, 1.0);
        findings.test.observe(disagreement);
        let evidence = findings.test.evidence();
        (evidence >= self.alarm_at()).then(|| self.tighten(evidence))
    }

    /// The evidence that raises the next alarm. Half of the error that is left belongs to each
    /// level, so that all levels together err with no more than is stated.
    pub fn alarm_at(&self) -> f64 {
        f64::from(2u32 << self.findings.level.min(LEVELS)) / self.false_alarm
    }

    fn tighten(&mut self, evidence: f64) -> Alarm {
        let median = self.median();
        let findings = &mut self.findings;
        findings.level += 1;
        findings.test = Martingale::new(findings.test.bound());
        findings.raised = median.filter(|_| findings.level < LEVELS);
        self.recent.clear();
        let threshold = self.raised().unwrap_or(f32::NEG_INFINITY);
        Alarm { level: self.findings.level, evidence, threshold }
    }

    /// The score that half of the recent accepted answers lie above; nothing for too few of them.
    fn median(&self) -> Option<f32> {
        let mut scores: Vec<f32> = self.recent.iter().copied().collect();
        scores.sort_unstable_by(f32::total_cmp);
        let above = scores.get(scores.len() / 2).copied();
        // The next float: where many scores are the same, they must not all stay accepted.
        above.filter(|_| scores.len() >= RECENT_MIN).map(f32::next_up)
    }

    fn accepts_nothing(&self) -> bool {
        self.findings.level > 0 && self.findings.raised.is_none()
    }

    /// The threshold that alarms have raised; infinite when nothing is accepted.
    pub fn raised(&self) -> Option<f32> {
        if self.accepts_nothing() { Some(f32::INFINITY) } else { self.findings.raised }
    }

    /// How many alarms there were.
    pub fn level(&self) -> u8 {
        self.findings.level
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn audit() -> Audit {
        let mut audit = Audit::new(&AuditPolicy::default(), Some(0.02), None);
        (0..100).for_each(|n| audit.accepted(0.5 + n as f32 / 200.0));
        audit
    }

    /// Checks that all disagree, until an alarm.
    fn alarm(audit: &mut Audit) -> Alarm {
        let level = audit.level();
        (0..1_000).find_map(|_| audit.checked(level, 1.0)).unwrap()
    }

    #[test]
    fn alarms_tighten_the_rule_until_nothing_is_accepted() {
        let mut audit = audit();
        assert_eq!((audit.raised(), audit.alarm_at()), (None, 200.0));
        let first = alarm(&mut audit);
        assert_eq!((first.level, first.threshold), (1, 0.75_f32.next_up()));
        assert!(first.evidence >= 200.0);
        assert_eq!((audit.raised(), audit.alarm_at()), (Some(first.threshold), 400.0));
        assert_eq!(audit.checked(0, 1.0), None, "accepted under the rule before");
        assert_eq!(audit.findings().test.observed(), 0);
        (0..50).for_each(|_| audit.accepted(0.9));
        assert_eq!(alarm(&mut audit).threshold, 0.9_f32.next_up(), "the same scores do not stay");
        let third = alarm(&mut audit);
        assert_eq!((third.level, third.threshold), (3, f32::INFINITY), "nothing was accepted");
        assert_eq!(audit.checked(3, 1.0), None);
    }

    #[test]
    fn survives_a_restart() {
        let mut first = audit();
        alarm(&mut first);
        first.checked(1, 1.0);
        let json = serde_json::to_string(first.findings()).unwrap();
        let saved: Findings = serde_json::from_str(&json).unwrap();
        let policy = AuditPolicy::default();
        let again = Audit::new(&policy, Some(0.02), Some(saved.clone()));
        assert_eq!(again.findings(), first.findings());
        assert_eq!(again.raised(), first.raised());
        let other = Audit::new(&policy, Some(0.03), Some(saved));
        assert_eq!((other.findings().test.observed(), other.raised()), (0, first.raised()));
    }

    #[test]
    fn a_roll_out_that_looks_has_more_checked_at_once_and_within_limits() {
        let policy = AuditPolicy::default();
        let mut audit = audit();
        let mut drawn =
            |asked: u32| (0..1000).filter(|_| audit.draws(&policy, asked, || 3)).count();
        assert_eq!([drawn(0), drawn(20), drawn(1)], [10, 50, 100]);
        assert_eq!(drawn(5000), 10, "never fewer than without it");
    }

    proptest! {
        /// Of any calls in a row, no more than one in a hundred is drawn, and one more.
        #[test]
        fn one_in_a_hundred(seed in any::<u64>(), calls in 1u32..2_000, per_check in 1u32..300) {
            let policy = AuditPolicy { calls_per_check: per_check, ..AuditPolicy::default() };
            let mut audit = audit();
            let entropy = |call: u32| (seed ^ u64::from(call)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let drawn = (0..calls).filter(|call| audit.draws(&policy, 0, || entropy(*call))).count();
            prop_assert!(drawn <= (calls / CALLS_PER_CHECK + 1) as usize);
            prop_assert!(per_check > 100 || drawn >= (calls / CALLS_PER_CHECK) as usize);
            let none = AuditPolicy { calls_per_check: 0, ..policy };
            prop_assert!(!audit.draws(&none, 10, || seed));
        }
    }
}
