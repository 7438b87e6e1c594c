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
//! 3. **Whether the cloud is asked now** ([`Passage::ask`]): connection, time that is left, the day's
//!    budgets, breaker. As the budget runs low, the answers that are least in doubt stay on the
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

use std::time::Duration;

/// What the placement of requests for one model depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// The least confidence of an edge answer; every one is accepted without it.
    pub threshold: Option<f32>,
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

    /// The same with a threshold that is at least this one.
    #[must_use]
    pub fn raised(self, to: Option<f32>) -> Self {
        let raise = |threshold: f32| to.map_or(threshold, |to| threshold.max(to));
        Self { threshold: self.threshold.map(raise), ..self }
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

    #[test]
    fn confidence_is_compared_with_the_threshold() {
        let profile =
            Profile { threshold: Some(0.8), cloud_variant: true, never_leaves_device: false };
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
