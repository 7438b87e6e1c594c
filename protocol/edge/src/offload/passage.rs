//! The way to the cloud that all models of a device share: link, budgets, breaker.

use crate::breaker::Breaker;
use crate::budget::Budget;
use crate::paths::{LinkMeter, LinkState};
use protocol::infer::Reason;
use std::time::{Duration, Instant};

/// Whoever asks with this priority or a higher one may spend the last of the budget.
const PRIORITY_HIGH: u8 = 2;
/// The share of the budget that is kept for higher priorities, by priority.
const RESERVES: [f64; 2] = [0.10, 0.05];
/// Below this fill answers are deferred by how much in doubt they are.
const FILL_PACED: f64 = 0.5;
/// Below this fill no answer is checked.
const FILL_CHECKS: f64 = 0.75;
/// Less time than this is none.
const ASK_MIN: Duration = Duration::from_millis(1);

/// The way to the cloud.
#[derive(Debug, Clone)]
pub struct Passage {
    /// Whether recent calls failed.
    pub breaker: Breaker,
    /// What the day may still cost.
    pub budget: Budget,
    /// How the link is.
    pub link: LinkMeter,
}

/// A call of the cloud that is to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether the cloud wants to be left alone for now ([`Outlook::is_busy`](super::Outlook::is_busy)).
    pub busy: bool,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Its priority.
    pub priority: u8,
    /// What share of the doubtful answers is less in doubt; 1 where the cloud is needed anyway.
    pub doubt: f64,
    /// Whether it is a check in the background.
    pub check: bool,
    /// The time until the answer must be on its way to the application.
    pub remaining: Duration,
    /// What of that is needed afterwards, to run the edge model.
    pub keep: Duration,
}

/// A call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// For how long its answer is waited.
    pub wait: Duration,
    /// How long the cloud may take, from the arrival of the request: what it answers later cannot
    /// arrive in time.
    pub cloud: Duration,
}

/// How the way to the cloud is at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The link.
    pub link: LinkState,
    /// How full the budget is, 0 to 1.
    pub fill: f64,
    /// Why nobody can be asked, if so.
    pub closed: Option<Reason>,
}

impl Passage {
    /// A passage over a link of which nothing is known yet.
    pub fn new(breaker: Breaker, budget: Budget) -> Self {
        Self { breaker, budget, link: LinkMeter::default() }
    }

    /// How things stand, for planning; asking is another thing.
    pub fn standing(&mut self, connected: bool, now: Instant) -> Standing {
        let fill = self.budget.fill(now);
        let closed = if !connected {
            Some(Reason::CloudUnreachable)
        } else if !self.breaker.would_allow(now) {
            Some(Reason::BreakerOpen)
        } else if fill <= 0.0 {
            Some(Reason::Budget)
        } else {
            None
        };
        Standing { link: self.link.state(), fill, closed }
    }

    /// Whether this call may be made now; it is paid for then, and its end must be told with
    /// [`Passage::ended`].
    ///
    /// # Errors
    /// The reason for not making it.
    pub fn ask(&mut self, ask: &Ask, now: Instant) -> Result<Grant, Reason> {
        if !ask.connected {
            return Err(Reason::CloudUnreachable);
        }
        if ask.busy {
            return Err(Reason::CloudBusy);
        }
        let wait = ask.remaining.saturating_sub(ask.keep);
        let cloud = wait.saturating_sub(self.link.state().wire(ask.bytes));
        if cloud < ASK_MIN {
            return Err(Reason::CloudLate);
        }
        if !self.breaker.would_allow(now) || ask.check && self.breaker.is_open() {
            return Err(Reason::BreakerOpen);
        }
        if !self.is_worth_it(ask, now) || !self.budget.spend(ask.bytes, now) {
            return Err(Reason::Budget);
        }
        self.breaker.allow(now); // last: whoever is let through a half-open breaker is its trial
        Ok(Grant { wait, cloud })
    }

    fn is_worth_it(&mut self, ask: &Ask, now: Instant) -> bool {
        let fill = self.budget.fill(now);
        if ask.check {
            return fill >= FILL_CHECKS;
        }
        if ask.priority >= PRIORITY_HIGH {
            return true;
        }
        let reserve = RESERVES[usize::from(ask.priority)];
        // At half full every doubtful answer is deferred, at the reserve none: between, those that
        // are most in doubt.
        let share = ((fill - reserve) / (FILL_PACED - reserve)).clamp(0.0, 1.0);
        fill > reserve && ask.doubt >= 1.0 - share
    }

    /// A call that began then ended: the cloud works, or it does not. One that refuses because it is busy works: when to
    /// ask it again it says itself, to each device another time, where breakers would all let their
    /// devices through in the same moment. A check's failure says nothing: it is the first thing that a
    /// busy cloud leaves aside.
    pub fn ended(&mut self, works: bool, began: Instant, now: Instant) {
        if works {
            self.breaker.succeeded();
        } else {
            self.breaker.failed(began, now);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use crate::breaker::BreakerPolicy;
    use crate::budget::BudgetPolicy;
    use crate::paths::LinkCounters;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn passage(calls_per_day: u64, now: Instant) -> Passage {
        let policy = BudgetPolicy { calls_per_day, bytes_per_day: 0 };
        let mut budget = Budget::new(policy, None, now, 0);
        budget.save(now, 0);
        budget.saved(true);
        Passage::new(Breaker::new(BreakerPolicy::default()), budget)
    }

    fn ask() -> Ask {
        Ask {
            connected: true,
            busy: false,
            bytes: 784,
            priority: 0,
            doubt: 1.0,
            check: false,
            remaining: MS(100),
            keep: MS(5),
        }
    }

    #[test]
    fn asked_only_where_an_answer_can_arrive() {
        let now = Instant::now();
        let mut passage = passage(0, now);
        let grant = |wait, cloud| Ok(Grant { wait: MS(wait), cloud: MS(cloud) });
        assert_eq!(passage.ask(&ask(), now), grant(95, 95));
        passage.link.read(LinkCounters { round_trip: MS(40), ..LinkCounters::default() });
        assert_eq!(passage.ask(&ask(), now), grant(95, 55));
        let late = Ask { remaining: MS(45), ..ask() };
        assert_eq!(passage.ask(&late, now), Err(Reason::CloudLate));
        let away = Ask { connected: false, ..ask() };
        assert_eq!(passage.ask(&away, now), Err(Reason::CloudUnreachable));
        assert_eq!(passage.ask(&Ask { busy: true, ..ask() }, now), Err(Reason::CloudBusy));
        (0..3).for_each(|_| passage.ended(false, now, now));
        assert_eq!(passage.ask(&ask(), now), Err(Reason::BreakerOpen));
        assert_eq!(passage.standing(true, now).closed, Some(Reason::BreakerOpen));
        assert_eq!(passage.standing(false, now).closed, Some(Reason::CloudUnreachable));
    }

    #[test]
    fn what_cannot_be_asked_is_no_trial_of_the_breaker() {
        let now = Instant::now();
        let mut passage = passage(0, now);
        (0..3).for_each(|_| passage.ended(false, now, now));
        let later = now + MS(2_000);
        let check = Ask { check: true, ..ask() };
        assert_eq!(passage.ask(&check, later), Err(Reason::BreakerOpen), "a check tries nothing");
        let late = Ask { remaining: MS(5), ..ask() };
        assert_eq!(passage.ask(&late, later), Err(Reason::CloudLate));
        assert!(passage.ask(&ask(), later).is_ok(), "the trial");
        assert_eq!(passage.ask(&ask(), later), Err(Reason::BreakerOpen), "only one");
    }

    /// As the bucket empties, what is worth less is done without first.
    #[test]
    fn pacing_is_no_cliff() {
        let now = Instant::now();
        let mut passage = passage(12_000, now); // a bucket of 1,000
        let mut ends = Vec::new();
        let kinds = [
            ("check", Ask { check: true, ..ask() }),
            ("little doubt", Ask { doubt: 0.1, ..ask() }),
            ("much doubt", Ask { doubt: 0.8, ..ask() }),
            ("all doubt", ask()),
            ("priority 1", Ask { priority: 1, ..ask() }),
            ("priority 2", Ask { priority: 2, ..ask() }),
        ];
        for (name, ask) in kinds {
            while passage.ask(&ask, now).is_ok() {
                passage.budget.save(now, 0);
                passage.budget.saved(true);
                passage.ended(true, now, now);
            }
            ends.push(format!("{name} until {:.2}", passage.budget.fill(now)));
        }
        insta::assert_snapshot!(ends.join("\n"));
    }
}
