//! A circuit breaker for deferral: after several failures in a row the cloud is not asked for a
//! while, so that hard requests do not each wait out their deadline; then one request tries again.
//!
//! Calls that were under way together fail together, with the node that they were on: only a call that
//! began after the last counted failure is one more in the row.

use std::time::{Duration, Instant};

/// The breaker's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one request may try.
    pub open_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 3, open_for: Duration::from_secs(2) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One trial is under way; it is given up at `until`, should nobody report its end.
    HalfOpen {
        until: Instant,
    },
}

/// Counts the failures of deferral and decides whether the next one may be tried.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// When the last failure that counted was known.
    last_failure: Option<Instant>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, last_failure: None }
    }

    /// From now on these rules. A breaker that is open stays so for as long as it was going to.
    pub fn set_policy(&mut self, policy: BreakerPolicy) {
        self.policy = policy;
    }

    /// Whether [`Breaker::allow`] would let a request through.
    pub fn would_allow(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } | State::HalfOpen { until } => now >= until,
        }
    }

    /// Whether a request may ask the cloud now. Whoever is allowed must report the end with
    /// [`Breaker::succeeded`] or [`Breaker::failed`].
    pub fn allow(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } | State::HalfOpen { until } if now >= until => {
                self.state = State::HalfOpen { until: now + self.policy.open_for };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// The cloud answered.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The cloud failed a call that began then, or was late for it.
    pub fn failed(&mut self, began: Instant, now: Instant) {
        if self.last_failure.is_some_and(|last| began < last) {
            return;
        }
        self.last_failure = Some(now);
        let failures = match self.state {
            State::Closed { failures } => failures + 1,
            State::Open { .. } | State::HalfOpen { .. } => self.policy.failures,
        };
        self.state = if failures >= self.policy.failures {
            State::Open { until: now + self.policy.open_for }
        } else {
            State::Closed { failures }
        };
    }

    /// Whether deferral is suspended.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn opens_tries_once_and_closes() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut breaker = Breaker::new(BreakerPolicy::default());
        for _ in 0..2 {
            breaker.failed(at(0), at(0));
        }
        assert!(breaker.allow(at(1)));
        breaker.failed(at(1), at(1));
        assert!(!breaker.allow(at(2_000)));
        assert!(breaker.allow(at(2_001)), "the trial");
        assert!(!breaker.allow(at(2_001)), "only one trial");
        breaker.failed(at(2_001), at(2_002));
        assert!(!breaker.allow(at(4_001)));
        assert!(breaker.allow(at(4_002)));
        breaker.succeeded();
        assert!(breaker.allow(at(4_003)) && !breaker.is_open());
    }

    #[test]
    fn calls_that_are_lost_together_count_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut breaker = Breaker::new(BreakerPolicy::default());
        for n in 0..16 {
            breaker.failed(at(n), at(200 + n));
        }
        assert!(!breaker.is_open(), "one node died");
        for round in 1..3 {
            breaker.failed(at(200 * round + 20), at(200 * round + 220));
        }
        assert!(breaker.is_open(), "asked anew, it failed again");
        assert!(breaker.allow(at(2_620)), "the trial");
        breaker.failed(at(30), at(2_630));
        assert!(breaker.allow(at(4_620)), "what began before says nothing of it");
    }

    #[test]
    fn new_rules_hold_from_the_next_failure_on() {
        let start = Instant::now();
        let mut breaker = Breaker::new(BreakerPolicy::default());
        breaker.failed(start, start);
        breaker.set_policy(BreakerPolicy { failures: 2, open_for: Duration::from_millis(10) });
        assert!(breaker.allow(start));
        breaker.failed(start, start);
        assert!(!breaker.allow(start + Duration::from_millis(9)));
        assert!(breaker.allow(start + Duration::from_millis(10)));
    }

    proptest! {
        #[test]
        fn always_recovers(steps in prop::collection::vec((0u64..3_000, any::<bool>()), 0..50)) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(BreakerPolicy::default());
            for (wait_ms, works) in steps {
                now += Duration::from_millis(wait_ms);
                if breaker.allow(now) {
                    if works { breaker.succeeded() } else { breaker.failed(now, now) }
                }
            }
            prop_assert!(breaker.allow(now + breaker.policy.open_for));
        }
    }
}
