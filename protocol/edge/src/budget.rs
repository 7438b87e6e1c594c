//! What deferral may cost in a day: calls and bytes, paced.
//!
//! Each is a token bucket that holds a twelfth of the day's amount and is refilled over the day
//! with the rest, so that no 24 hours, wherever they begin, cost more than the day's amount (a
//! bucket of `c` tokens, refilled at `r`, gives at most `c + r t` in a time `t`). Pacing is no
//! cliff: as the bucket empties, [`Budget::fill`] sinks, and what is worth less is done without
//! first (`offload::passage`).
//!
//! It survives a restart by leases: with what is left, the next [`LEASE_SHARE`] of the bucket is written
//! down as if it were spent, at the latest moment that there is. So a crash forgets no spending; it
//! costs at most what the lease had left.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The share of a day's amount that a bucket holds.
const BURST_SHARE: f64 = 1.0 / 12.0;
/// The share of the bucket that may be spent before the next writing down.
pub const LEASE_SHARE: f64 = 0.25;

/// What a day may cost; 0 for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Requests to the cloud.
    pub calls_per_day: u64,
    /// Bytes of tensors to the cloud.
    pub bytes_per_day: u64,
}

/// What is written down of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedBudget {
    /// Calls.
    pub calls: SavedBucket,
    /// Bytes.
    pub bytes: SavedBucket,
    /// When, in Unix seconds.
    pub at_s: i64,
}

/// One bucket as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SavedBucket {
    /// What was left.
    pub level: f64,
    /// What of it may have been spent since.
    pub lease: f64,
}

#[derive(Debug, Clone)]
struct Bucket {
    per_day: f64,
    level: f64,
    /// What of the level is written down as spent already.
    lease: f64,
    /// The lease that is being written down.
    next_lease: Option<f64>,
    /// The largest cost so far: a lease below it would be none.
    largest: f64,
}

impl Bucket {
    fn new(per_day: u64) -> Self {
        let mut bucket = Self {
            per_day: per_day as f64,
            level: 0.0,
            lease: 0.0,
            next_lease: None,
            largest: 1.0,
        };
        bucket.level = bucket.capacity();
        bucket
    }

    fn is_limited(&self) -> bool {
        self.per_day > 0.0
    }

    fn capacity(&self) -> f64 {
        (self.per_day * BURST_SHARE).max(self.per_day.min(1.0))
    }

    fn refill(&mut self, elapsed: Duration) {
        let rate = (self.per_day - self.capacity()) / DAY.as_secs_f64();
        self.level = (self.level + rate * elapsed.as_secs_f64()).min(self.capacity());
    }

    fn fill(&self) -> f64 {
        if self.is_limited() { (self.level / self.capacity()).clamp(0.0, 1.0) } else { 1.0 }
    }

    fn affords(&mut self, cost: f64) -> bool {
        self.largest = self.largest.max(cost);
        !self.is_limited() || cost <= self.level.min(self.lease)
    }

    fn spend(&mut self, cost: f64) {
        if self.is_limited() {
            self.level -= cost;
            self.lease -= cost;
            self.next_lease = self.next_lease.map(|lease| (lease - cost).max(0.0));
        }
    }

    /// What the next lease is.
    fn whole_lease(&self) -> f64 {
        self.level.min((self.capacity() * LEASE_SHARE).max(self.largest)).max(0.0)
    }

    fn wants_lease(&self) -> bool {
        let whole = self.whole_lease();
        self.is_limited() && (self.lease < whole / 2.0 || self.lease < whole.min(self.largest))
    }

    fn save(&mut self) -> SavedBucket {
        let lease = self.whole_lease();
        self.next_lease = Some(lease);
        SavedBucket { level: self.level, lease }
    }

    fn saved(&mut self, kept: bool) {
        let next = self.next_lease.take();
        self.lease = next.filter(|_| kept).unwrap_or(self.lease);
    }

    fn restore(&mut self, saved: SavedBucket, away: Duration) {
        // A file that was tampered with, or a larger budget before, gives no more than there is.
        let sane = |amount: f64| if amount.is_finite() { amount.max(0.0) } else { 0.0 };
        self.level = sane(saved.level).min(self.capacity());
        self.refill(away);
        self.level = (self.level - sane(saved.lease)).max(0.0);
    }
}

/// Both buckets.
#[derive(Debug, Clone)]
pub struct Budget {
    calls: Bucket,
    bytes: Bucket,
    at: Instant,
}

impl Budget {
    /// A budget that goes on from what was written down, or begins with full buckets. Nothing can
    /// be spent before the first [`Budget::save`] has ended. `now_s` is the time of day in Unix seconds.
    pub fn new(policy: BudgetPolicy, saved: Option<SavedBudget>, now: Instant, now_s: i64) -> Self {
        let mut budget = Self {
            calls: Bucket::new(policy.calls_per_day),
            bytes: Bucket::new(policy.bytes_per_day),
            at: now,
        };
        if let Some(saved) = saved {
            let away_s = u64::try_from(now_s.saturating_sub(saved.at_s)).unwrap_or(0);
            let away = Duration::from_secs(away_s).min(DAY);
            budget.calls.restore(saved.calls, away);
            budget.bytes.restore(saved.bytes, away);
        }
        budget
    }

    /// From now on these amounts. What is left shrinks to what the new buckets hold.
    pub fn set_policy(&mut self, policy: BudgetPolicy, now: Instant) {
        self.refill(now);
        let wanted = [policy.calls_per_day, policy.bytes_per_day];
        for (bucket, per_day) in [&mut self.calls, &mut self.bytes].into_iter().zip(wanted) {
            if bucket.per_day == per_day as f64 {
                continue;
            }
            let fresh = Bucket::new(per_day);
            // Without a limit nothing was counted, so that nothing is known to be left.
            let level = if bucket.is_limited() { bucket.level.min(fresh.level) } else { 0.0 };
            *bucket = Bucket { level, ..fresh };
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.calls.refill(elapsed);
        self.bytes.refill(elapsed);
    }

    /// How full the emptier bucket is, 0 to 1; 1 without limits.
    pub fn fill(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.calls.fill().min(self.bytes.fill())
    }

    /// Spends one call of so many bytes, if there is enough.
    pub fn spend(&mut self, bytes: u64, now: Instant) -> bool {
        self.refill(now);
        let affordable = self.bytes.affords(bytes as f64) && self.calls.affords(1.0);
        if affordable {
            self.calls.spend(1.0);
            self.bytes.spend(bytes as f64);
        }
        affordable
    }

    /// What must be written down now so that spending can go on; nothing while the lease lasts, or
    /// while that is being done: its end is told with [`Budget::saved`].
    pub fn save(&mut self, now: Instant, now_s: i64) -> Option<SavedBudget> {
        self.refill(now);
        let under_way = self.calls.next_lease.is_some() || self.bytes.next_lease.is_some();
        if under_way || !self.calls.wants_lease() && !self.bytes.wants_lease() {
            return None;
        }
        Some(SavedBudget { calls: self.calls.save(), bytes: self.bytes.save(), at_s: now_s })
    }

    /// It was written down, or could not be.
    pub fn saved(&mut self, kept: bool) {
        self.calls.saved(kept);
        self.bytes.saved(kept);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALLS: BudgetPolicy = BudgetPolicy { calls_per_day: 1_200, bytes_per_day: 0 };

    /// Writes a budget down, if it wants to be.
    fn keep(budget: &mut Budget, now: Instant, now_s: i64) -> Option<SavedBudget> {
        let saved = budget.save(now, now_s)?;
        budget.saved(true);
        Some(saved)
    }

    /// A budget that is saved whenever it wants to be.
    fn spend(budget: &mut Budget, bytes: u64, now: Instant) -> bool {
        keep(budget, now, 0);
        budget.spend(bytes, now)
    }

    #[test]
    fn a_burst_then_the_days_pace() {
        let start = Instant::now();
        let mut budget = Budget::new(CALLS, None, start, 0);
        assert!(!budget.spend(1, start), "nothing is written down yet");
        let burst = (0..1_000).filter(|_| spend(&mut budget, 1, start)).count();
        assert_eq!(burst, 100);
        assert!(budget.fill(start) < 0.01);
        let hour = start + Duration::from_secs(3600);
        let next = (0..1_000).filter(|_| spend(&mut budget, 1, hour)).count();
        assert_eq!(next, 45, "(1200 - 100) / 24");
    }

    #[test]
    fn no_limit_costs_nothing() {
        let now = Instant::now();
        let mut budget = Budget::new(BudgetPolicy::default(), None, now, 0);
        assert!((0..100).all(|_| budget.spend(1 << 40, now)));
        assert_eq!((budget.fill(now), budget.save(now, 0)), (1.0, None));
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_never_sent() {
        let now = Instant::now();
        let policy = BudgetPolicy { bytes_per_day: 12_000, ..BudgetPolicy::default() };
        let mut budget = Budget::new(policy, None, now, 0);
        assert!(!spend(&mut budget, 1_001, now));
        assert!(spend(&mut budget, 900, now), "but all that the bucket holds may be");
    }

    #[test]
    fn a_restart_forgets_no_spending_and_gives_nothing() {
        let start = Instant::now();
        let mut budget = Budget::new(CALLS, None, start, 1_000);
        let saved = keep(&mut budget, start, 1_000).unwrap();
        (0..20).for_each(|_| assert!(budget.spend(1, start)));
        let mut again = Budget::new(CALLS, Some(saved), start, 1_000);
        assert_eq!((0..1_000).filter(|_| spend(&mut again, 1, start)).count(), 75);
        let mut later = Budget::new(CALLS, Some(saved), start, 1_000 + 3600);
        let spent = (0..1_000).filter(|_| spend(&mut later, 1, start)).count();
        assert_eq!(spent, 75, "full, but for what may have been spent just before");
        let mut back = Budget::new(CALLS, Some(saved), start, 0); // the clock was set back
        assert_eq!((0..1_000).filter(|_| spend(&mut back, 1, start)).count(), 75);
    }

    #[test]
    fn a_lease_holds_once_it_is_written_down() {
        let now = Instant::now();
        let mut budget = Budget::new(CALLS, None, now, 0);
        assert!(budget.save(now, 0).is_some() && budget.save(now, 0).is_none());
        assert!(!budget.spend(1, now), "not yet");
        budget.saved(false);
        assert!(!budget.spend(1, now), "the disk is full");
        assert!(budget.save(now, 0).is_some());
        budget.saved(true);
        (0..15).for_each(|_| assert!(budget.spend(1, now)));
        assert!(budget.save(now, 0).is_some());
        (0..10).for_each(|_| assert!(budget.spend(1, now), "from the lease before"));
        assert!(!budget.spend(1, now));
        budget.saved(true);
        assert_eq!((0..100).filter(|_| budget.spend(1, now)).count(), 15);
    }

    #[test]
    fn new_amounts_hold_at_once() {
        let now = Instant::now();
        let mut budget = Budget::new(CALLS, None, now, 0);
        assert!(spend(&mut budget, 1, now));
        budget.set_policy(BudgetPolicy { calls_per_day: 24, bytes_per_day: 0 }, now);
        assert_eq!((0..100).filter(|_| spend(&mut budget, 1, now)).count(), 2);
        budget.set_policy(BudgetPolicy::default(), now);
        assert!(budget.spend(1, now));
    }

    proptest! {
        /// Whatever is asked, crashes in between included, no 24 hours cost more than a day's.
        #[test]
        fn no_day_costs_more_than_its_amount(
            per_day in 1u64..400,
            steps in prop::collection::vec((0u64..4_000, 0u8..20), 1..500),
        ) {
            let start = Instant::now();
            let policy = BudgetPolicy { calls_per_day: per_day, bytes_per_day: 0 };
            let mut budget = Budget::new(policy, None, start, 0);
            let (mut time_s, mut saved, mut spent) = (0u64, None, Vec::new());
            for (wait_s, kind) in steps {
                time_s += wait_s;
                let (now, now_s) = (start + Duration::from_secs(time_s), time_s as i64);
                if kind == 0 {
                    budget = Budget::new(policy, saved, now, now_s);
                }
                for _ in 0..kind {
                    saved = keep(&mut budget, now, now_s).or(saved);
                    if budget.spend(1, now) {
                        spent.push(time_s);
                    }
                }
            }
            for (index, begin) in spent.iter().enumerate() {
                let within = spent[index..].iter().take_while(|at| **at < begin + DAY.as_secs());
                prop_assert!(within.count() as u64 <= per_day);
            }
        }
    }
}
