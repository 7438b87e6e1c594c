//! Where a request is answered: inside its deadline, at the risk that the rule stands for, for the
//! fewest calls of the cloud.
//!
//! Three decisions, in this order:
//!
//! 1. **The plan** ([`choose`]), before anything runs. What the application asks for and what the
//!    model forbids goes first. Then, the first that holds: the cloud cannot be asked at all ->
//!    *edge first*; the device cannot answer in time and the cloud can -> *cloud first*; the device
//!    usually defers this model's requests ([`Outlook::deferred`], measured, whatever the input) ->
//!    *cloud first*; the device is slower than the cloud by what [`Rules::cloud_gain`] says -> *cloud
//!    first*; one after the other would not fit into the deadline -> *hedge*, both at once; else
//!    *edge first*, the cheapest. One in [`EXPLORE_EVERY`] of the requests that would go to the cloud
//!    first goes to the edge first all the same, so that what is known of it stays true. Times are
//!    what 19 of 20 answers took ([`Estimate::high`](crate::paths::Estimate::high)), of both ways, with
//!    the queue, the payload and the link as they are now.
//! 2. **Whether the edge answer is accepted** ([`Profile::accepts`]): by its score, against the
//!    threshold of the bundle, or the higher one that an alarm has set ([`crate::audit`]).
//! 3. **Whether the cloud is asked now** ([`Passage::ask`]): connection, whether it said that it is
//!    busy, time that is left, the day's budgets, breaker. As the budget runs low, the answers that are least in doubt stay on the
//!    device first (`edge-degraded`, reason `budget`), and no request is hedged.
//!
//! Between them stands the state machine of [`Request`]: the agent carries out each [`Action`] and
//! reports each [`Event`], until the action is an answer or a failure. Every request ends in exactly
//! one. Of a hedge the first acceptable answer wins, and what still runs is cancelled.

mod choice;
mod machine;
mod outlook;
mod passage;

pub use choice::{EXPLORE_EVERY, First, Plan, Rules, Situation, choose, sequence};
pub use machine::{Action, Event, Request};
pub use outlook::{Outlook, Share};
pub use passage::{Ask, Grant, Passage, Standing};

use protocol::infer::{Placement, Reason, Risk};
use std::time::Duration;

/// What the placement of requests for one model depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// The least confidence of an edge answer; every one is accepted without it.
    pub threshold: Option<f32>,
    /// What is promised of answers that reach the threshold.
    pub risk: Option<Risk>,
    /// Whether the cloud holds a larger variant of this version.
    pub cloud_variant: bool,
    /// Whether inputs may never leave the device.
    pub never_leaves_device: bool,
}

impl Profile {
    /// Whether this edge answer is accepted. An answer without a confidence is accepted only
    /// where there is no threshold.
    pub fn accepts(&self, confidence: Option<f32>) -> bool {
        match (self.threshold, confidence) {
            (None, _) => true,
            (Some(threshold), Some(confidence)) => confidence >= threshold,
            (Some(_), None) => false,
        }
    }

    /// What is promised of an answer from there, for that reason: only what the rule accepted was
    /// calibrated, so an answer that was asked for, or that stands because the cloud was absent, is
    /// promised nothing.
    pub fn promise(&self, placement: Placement, reason: Reason) -> Option<Risk> {
        match (placement, reason) {
            (Placement::Edge, Reason::Confident) => self.risk,
            _ => None,
        }
    }

    /// The same with a threshold that is at least this one, which an alarm has set: the promise
    /// does not hold any more.
    #[must_use]
    pub fn raised(self, to: Option<f32>) -> Self {
        let Some(to) = to else { return self };
        let threshold = self.threshold.map(|threshold| threshold.max(to));
        Self { threshold, risk: self.risk.map(|_| Risk::Unverified), ..self }
    }

    /// Whether answers may be deferred, and checked, at all.
    pub fn can_defer(&self) -> bool {
        self.threshold.is_some() && self.cloud_variant && !self.never_leaves_device
    }
}

/// What is kept back of a deadline for the way to the application: the configured margin, but never
/// more than a quarter of the time that the application allows.
pub fn margin(configured: Duration, allowed: Duration) -> Duration {
    configured.min(allowed / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let risk = Some(Risk::AtMost(0.01));
        Profile { threshold: Some(0.8), risk, cloud_variant: true, never_leaves_device: false }
    }

    #[test]
    fn only_what_the_rule_accepted_is_promised_anything() {
        let promise = |placement, reason| profile().promise(placement, reason);
        let bound = Some(Risk::AtMost(0.01));
        assert_eq!(promise(Placement::Edge, Reason::Confident), bound);
        assert_eq!(promise(Placement::Edge, Reason::Requested), None);
        assert_eq!(promise(Placement::EdgeDegraded, Reason::CloudLate), None);
        assert_eq!(promise(Placement::Cloud, Reason::Deferred), None);
        let raised = profile().raised(Some(0.9));
        assert_eq!(raised.promise(Placement::Edge, Reason::Confident), Some(Risk::Unverified));
    }

    #[test]
    fn confidence_is_compared_with_the_threshold() {
        let profile = profile();
        for (confidence, accepted) in
            [(Some(0.8), true), (Some(0.79), false), (Some(f32::NAN), false), (None, false)]
        {
            assert_eq!(profile.accepts(confidence), accepted, "{confidence:?}");
        }
        assert!(Profile { threshold: None, ..profile }.accepts(None));
        assert!(!profile.raised(Some(0.9)).accepts(Some(0.85)));
        assert!(profile.raised(Some(0.5)).accepts(Some(0.8)) && profile.raised(None) == profile);
        assert!(!profile.raised(Some(f32::INFINITY)).accepts(Some(1.0)));
    }

    #[test]
    fn a_short_deadline_keeps_back_less() {
        let ms = Duration::from_millis;
        assert_eq!(margin(ms(5), ms(1_000)), ms(5));
        assert_eq!(margin(ms(5), ms(4)), ms(1));
    }
}
