//! `[update]`: how a new version of a model, and of the agent, takes over, and what makes it give way again.

use super::ConfigError;
use edge::probation::{Limits, Terms};
use edge::shadow::ShadowPolicy;
use edge::takeover;
use serde::Deserialize;
use std::time::Duration;

/// How a new version takes over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Update {
    /// Live requests that a candidate answers beside the active version before it is judged...
    pub(crate) shadow_requests: u32,
    /// ...or this time, in seconds; 0 for no shadow but by probes...
    pub(crate) shadow_s: u32,
    /// ...or this time without a request for the model.
    pub(crate) shadow_quiet_s: u32,
    /// The share of one core that it may take meanwhile.
    pub(crate) shadow_cpu: f64,
    /// The share of answers that may be others than before.
    pub(crate) disagreement: f64,
    /// The share of runs that may fail.
    pub(crate) failures: f64,
    /// The median run may take so many times as long as before...
    pub(crate) latency_factor: f64,
    /// ...and this on top of it, in milliseconds.
    pub(crate) latency_slack_ms: u32,
    /// Answers after which a version that has taken over has passed its trial...
    pub(crate) trial_requests: u32,
    /// ...or this time, in seconds.
    pub(crate) trial_s: u32,
    /// How long it is watched after that, in seconds.
    pub(crate) soak_s: u32,
    /// Starts of the agent in a row without a clean word after which it gives way.
    pub(crate) starts: u32,
    /// Whether the operator may have the agent's own program replaced.
    pub(crate) program: bool,
    /// A new program of the agent must be well within so many seconds...
    pub(crate) program_patience_s: u32,
    /// ...and is watched for so many after that.
    pub(crate) program_soak_s: u32,
}

impl Default for Update {
    fn default() -> Self {
        let (limits, program) = (Limits::default(), takeover::Terms::default());
        Self {
            shadow_requests: 100,
            shadow_s: 600,
            shadow_quiet_s: 30,
            shadow_cpu: 0.05,
            disagreement: limits.disagreement,
            failures: limits.failures,
            latency_factor: limits.latency_factor,
            latency_slack_ms: 5,
            trial_requests: 100,
            trial_s: 600,
            soak_s: 86_400,
            starts: limits.starts,
            program: true,
            program_patience_s: program.patience_s,
            program_soak_s: program.soak_s,
        }
    }
}

impl Update {
    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let share = |field, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::Update { field, why: "a share lies between 0 and 1" }),
        };
        share("shadow_cpu", self.shadow_cpu)?;
        share("disagreement", self.disagreement)?;
        share("failures", self.failures)?;
        let grows = self.latency_factor.is_finite() && self.latency_factor >= 1.0;
        let why = "at least 1: no version needs to be faster than the one before";
        grows.then_some(()).ok_or(ConfigError::Update { field: "latency_factor", why })
    }

    /// What a new program of the agent is held to.
    pub(crate) fn program(&self) -> takeover::Terms {
        takeover::Terms {
            patience_s: self.program_patience_s,
            soak_s: self.program_soak_s,
            starts: self.starts,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            failures: self.failures,
            latency_factor: self.latency_factor,
            latency_slack: Duration::from_millis(self.latency_slack_ms.into()),
            disagreement: self.disagreement,
            starts: self.starts,
        }
    }

    /// What a shadow keeps to.
    pub(crate) fn shadow(&self) -> ShadowPolicy {
        ShadowPolicy {
            requests: usize::try_from(self.shadow_requests).unwrap_or(usize::MAX),
            time: seconds(self.shadow_s),
            quiet: seconds(self.shadow_quiet_s),
            cpu_share: self.shadow_cpu,
            limits: self.limits(),
        }
    }

    /// What a probation keeps to.
    pub(crate) fn probation(&self) -> Terms {
        Terms {
            trial_requests: self.trial_requests,
            trial: seconds(self.trial_s),
            soak: seconds(self.soak_s),
            limits: self.limits(),
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}
