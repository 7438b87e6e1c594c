//! How many items of one model may be in flight: found by measurement.
//!
//! The signal is CoDel's (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012;
//! RFC 8289): a queue is good as long as it sometimes drains; what stays over a whole interval is
//! a *standing* queue, which adds delay and no throughput. The answer to it is not CoDel's, which
//! drops what was accepted, but a limit on what is accepted: additive increase, multiplicative
//! decrease (Chiu and Jain, 1989).
//!
//! A queue that stands although nobody is refused is no overload: so many callers wait for their
//! answers before they ask again, and refusing some of them would help nobody. So the limit falls only
//! where it binds, and comes back to where it started once it does not bind any more. It starts at so
//! many items for each usual request: else as many callers as ever would be refused because each of
//! them asks about more.
//!
//! Why not the gradient of latencies (Netflix concurrency-limits, Gradient2): it has to guess
//! the queue from round trips. Here the queue is our own and can be looked at; batches make runs
//! longer and throughput higher at once, which a gradient takes for congestion; and its long-term
//! average learns a lasting overload as the normal state. Why not CoDel's time of each request in
//! the queue: with fair queueing and priorities the shortest wait is that of the favoured, while
//! another tenant's requests stand. The backlog as a whole does not depend on the order.

use std::time::{Duration, Instant};

use crate::batch::Load;

/// How the limit moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Never fewer items, and never fewer than 3 requests of those that wait for each session.
    pub min: u32,
    /// Never more items.
    pub max: u32,
    /// Where it starts, where requests have one item; the same number of requests where they have more.
    pub start: u32,
    /// A backlog is standing when it does not fall below this within an interval. A quarter of a
    /// batch's time is allowed in any case: the next batch has to be there when a session is idle.
    pub target: Duration,
    /// How long is looked; at least eight batches.
    pub interval: Duration,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        Self {
            min: 8,
            max: 4096,
            start: 64,
            target: Duration::from_millis(1),
            interval: Duration::from_millis(100),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Limit {
    policy: LimitPolicy,
    limit: u32,
    /// Where it starts, and comes back to.
    start: u32,
    ends_at: Option<Instant>,
    /// The smallest backlog of this interval.
    standing: Option<Duration>,
    /// Whether anybody was refused because of the limit.
    was_hit: bool,
}

impl Limit {
    pub(super) fn new(policy: LimitPolicy) -> Self {
        let mut limit =
            Self { policy, limit: 0, start: 0, ends_at: None, standing: None, was_hit: false };
        limit.suit(1);
        limit
    }

    /// Requests have so many items, usually. Where an overload has taken places away, they are not
    /// given back for that.
    pub(super) fn suit(&mut self, request_items: u64) {
        let was_cut = self.limit < self.start;
        let items = u32::try_from(request_items).unwrap_or(u32::MAX).max(1);
        let min = self.policy.min.max(1);
        self.start = self.policy.start.saturating_mul(items).clamp(min, self.policy.max.max(min));
        if !was_cut {
            self.limit = self.limit.max(self.start);
        }
    }

    pub(super) fn get(&self) -> u32 {
        self.limit
    }

    pub(super) fn hit(&mut self) {
        self.was_hit = true;
    }

    /// Looks at the backlog; true when an interval has ended.
    pub(super) fn observe(&mut self, load: &Load, now: Instant) -> bool {
        let backlog = load.backlog();
        self.standing = Some(self.standing.map_or(backlog, |least| least.min(backlog)));
        let interval = self.policy.interval.max(load.batch_time * 8);
        let ends_at = *self.ends_at.get_or_insert(now + interval);
        if now < ends_at {
            return false;
        }
        self.adjust(load);
        self.ends_at = Some(now + interval);
        self.standing = None;
        self.was_hit = false;
        true
    }

    fn adjust(&mut self, load: &Load) {
        let target = self.policy.target.max(load.batch_time / 4);
        let standing = self.standing.unwrap_or_default();
        let request = load.waiting_items / load.waiting_requests.max(1);
        let room = load.sessions.saturating_mul(request.max(1)).saturating_mul(3);
        let min = self.policy.min.max(room).max(1);
        let step = if !self.was_hit {
            // Back towards the start, where an overload has ended.
            let raised = self.limit.saturating_add((self.limit / 16).max(1)).min(self.start);
            self.limit.max(raised)
        } else if standing > target {
            // By what stands too much, but by a quarter at most: bursts end by themselves.
            let surplus = items_in(standing - target, load).max(1);
            self.limit.saturating_sub(surplus.min((self.limit / 4).max(1)))
        } else {
            self.limit.saturating_add((self.limit / 16).max(1))
        };
        self.limit = step.clamp(min, self.policy.max.max(min));
    }
}

fn items_in(time: Duration, load: &Load) -> u32 {
    let per_item = load.time_for(1).as_nanos().max(1);
    u32::try_from(time.as_nanos() / per_item).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn load(waiting_items: u32) -> Load {
        let (item_time, batch_time) = (MS(1), MS(8));
        let waiting_requests = waiting_items;
        Load {
            sessions: 1,
            busy: 1,
            waiting_requests,
            waiting_items,
            item_time,
            batch_time,
            ..Load::default()
        }
    }

    /// The limit after `rounds` of 1 ms each, with these backlogs in turn.
    fn after(backlogs: &[u32], rounds: u64, hit: bool) -> u32 {
        let start = Instant::now();
        let mut limit = Limit::new(LimitPolicy::default());
        for (ms, waiting) in (0..rounds).zip(backlogs.iter().cycle()) {
            if hit {
                limit.hit();
            }
            limit.observe(&load(*waiting), start + MS(ms));
        }
        limit.get()
    }

    #[test]
    fn a_queue_that_drains_is_left_alone() {
        assert_eq!(after(&[40, 0], 2000, false), 64);
    }

    #[test]
    fn a_standing_queue_shrinks_it() {
        assert_eq!(after(&[40, 30], 102, true), 48, "by a quarter at most");
        assert_eq!(after(&[40, 30], 5000, true), 8, "down to its bound");
    }

    #[test]
    fn who_waits_for_answers_before_asking_again_is_not_refused() {
        assert_eq!(after(&[40, 30], 5000, false), 64);
    }

    #[test]
    fn it_comes_back_when_the_overload_has_ended() {
        let start = Instant::now();
        let mut limit = Limit::new(LimitPolicy::default());
        for ms in 0..10_000 {
            if ms < 5000 {
                limit.hit();
            }
            limit.observe(&load(30), start + MS(ms));
            assert!(ms != 4999 || limit.get() == 8);
        }
        assert_eq!(limit.get(), 64);
    }

    #[test]
    fn larger_requests_have_as_many_places_unless_some_were_taken_away() {
        let mut limit = Limit::new(LimitPolicy::default());
        limit.suit(16);
        assert_eq!(limit.get(), 64 * 16);
        limit.suit(1000);
        assert_eq!(limit.get(), 4096, "its bound");
        let mut limit = Limit::new(LimitPolicy::default());
        let start = Instant::now();
        for ms in 0..102 {
            limit.hit();
            limit.observe(&load(30), start + MS(ms));
        }
        assert_eq!(limit.get(), 48);
        limit.suit(16);
        assert_eq!(limit.get(), 48, "in an overload");
    }

    #[test]
    fn it_grows_where_it_binds_and_nothing_stands() {
        assert_eq!(after(&[1, 0], 102, true), 68);
        assert_eq!(after(&[1, 0], 20_000, true), 4096);
    }
}
