//! `[offload]`: when the cloud is asked, what that may cost, and how accepted answers are watched.

use edge::audit::AuditPolicy;
use edge::breaker::BreakerPolicy;
use edge::budget::BudgetPolicy;
use edge::offload::Rules;
use edge::thrift::Thrift;
use serde::Deserialize;
use std::time::Duration;

/// When the cloud is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Offload {
    /// The deadline of a request that names none, in milliseconds.
    pub(crate) default_deadline_ms: u32,
    /// Kept back from every deadline for the way back to the application, in milliseconds; at most
    /// a quarter of the deadline.
    pub(crate) margin_ms: u32,
    /// Failed deferrals in a row after which the cloud is left alone for a while.
    pub(crate) breaker_failures: u32,
    /// How long it is left alone, in milliseconds.
    pub(crate) breaker_open_ms: u32,
    /// The cloud is asked first where at least this share of the edge answers is deferred.
    pub(crate) cloud_first_share: f64,
    /// The cloud is asked first where it is faster by at least this, in milliseconds.
    pub(crate) cloud_gain_ms: u32,
    /// Where the deadline is tight, both are asked at once if at least this share of the edge
    /// answers is deferred.
    pub(crate) hedge_share: f64,
    /// Requests to the cloud in 24 hours; 0 for no limit.
    pub(crate) calls_per_day: u64,
    /// Bytes of tensors to the cloud in 24 hours; 0 for no limit.
    pub(crate) bytes_per_day: u64,
    /// When inputs are sent packed that a bundle allows to: `auto`, `always` or `never`.
    pub(crate) thrift: Thrift,
    /// Of so many calls one is checked, if its edge answer is accepted; at least 100, 0 for none.
    pub(crate) calls_per_check: u32,
    /// The share of accepted answers that may differ from the cloud's, where a bundle states none.
    pub(crate) check_disagreement: f64,
    /// The probability that checks ever raise an alarm about a bundle that keeps to it.
    pub(crate) check_false_alarm: f64,
}

impl Default for Offload {
    fn default() -> Self {
        let (rules, checks) = (Rules::default(), AuditPolicy::default());
        Self {
            default_deadline_ms: 1000,
            margin_ms: 5,
            breaker_failures: 3,
            breaker_open_ms: 2000,
            cloud_first_share: rules.cloud_first_share,
            cloud_gain_ms: u32::try_from(rules.cloud_gain.as_millis()).unwrap_or(u32::MAX),
            hedge_share: rules.hedge_share,
            calls_per_day: 0,
            bytes_per_day: 0,
            thrift: Thrift::default(),
            calls_per_check: checks.calls_per_check,
            check_disagreement: checks.disagreement,
            check_false_alarm: checks.false_alarm,
        }
    }
}

impl Offload {
    pub(crate) fn breaker(&self) -> BreakerPolicy {
        BreakerPolicy {
            failures: self.breaker_failures.max(1),
            open_for: Duration::from_millis(self.breaker_open_ms.into()),
        }
    }

    pub(crate) fn budget(&self) -> BudgetPolicy {
        BudgetPolicy { calls_per_day: self.calls_per_day, bytes_per_day: self.bytes_per_day }
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            cloud_first_share: self.cloud_first_share,
            cloud_gain: Duration::from_millis(self.cloud_gain_ms.into()),
            hedge_share: self.hedge_share,
        }
    }

    pub(crate) fn audit(&self) -> AuditPolicy {
        AuditPolicy {
            calls_per_check: self.calls_per_check,
            disagreement: self.check_disagreement,
            false_alarm: self.check_false_alarm,
        }
    }

    /// The deadline of a request, and what is kept back of it.
    pub(crate) fn allows(&self, deadline_ms: Option<u32>) -> (Duration, Duration) {
        let allowed = Duration::from_millis(deadline_ms.unwrap_or(self.default_deadline_ms).into());
        let configured = Duration::from_millis(self.margin_ms.into());
        (allowed, edge::offload::margin(configured, allowed))
    }
}
