//! A token bucket in one number.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): instead of counting tokens, it keeps
//! the moment at which the bucket will be full again. Whole nanoseconds: nothing drifts.

use std::time::{Duration, Instant};

/// How many requests a second, and how many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, in the long run; at least 1.
    pub per_s: u32,
    /// Requests at once; at least 1.
    pub burst: u32,
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_nanos(1_000_000_000 / u64::from(self.per_s.max(1)))
    }

    fn burst_time(self) -> Duration {
        self.interval() * self.burst.max(1)
    }
}

/// The state of a bucket: when it is full again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Whether there is a token.
    ///
    /// # Errors
    /// How long until there is one.
    pub(super) fn check(self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let after = self.full_at.max(now) + rate.interval();
        let excess = (after - now).saturating_sub(rate.burst_time());
        if excess.is_zero() { Ok(()) } else { Err(excess) }
    }

    /// Takes a token that [`Bucket::check`] found.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.interval();
    }

    pub(super) fn is_full(self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate { per_s: 10, burst: 3 };
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        let taken = (0..5).filter(|_| {
            let ok = bucket.check(rate, start).is_ok();
            if ok {
                bucket.take(rate, start);
            }
            ok
        });
        assert_eq!(taken.count(), 3);
        assert_eq!(bucket.check(rate, start), Err(Duration::from_millis(100)));
        assert!(bucket.check(rate, start + Duration::from_millis(100)).is_ok());
    }

    proptest! {
        /// Over any stretch no more than burst + rate x time, and the wait that a refusal names
        /// is exact.
        #[test]
        fn never_more_than_its_rate(
            per_s in 1_u32..5000, burst in 1_u32..50,
            gaps_us in prop::collection::vec(0_u64..3000, 1..300),
        ) {
            let rate = Rate { per_s, burst };
            let start = Instant::now();
            let (mut now, mut taken, mut bucket) = (start, 0_u128, Bucket::full(start));
            for gap in gaps_us {
                now += Duration::from_micros(gap);
                match bucket.check(rate, now) {
                    Ok(()) => { bucket.take(rate, now); taken += 1; }
                    Err(wait) => {
                        prop_assert!(bucket.check(rate, now + wait).is_ok());
                        let early = wait - Duration::from_nanos(1);
                        prop_assert!(bucket.check(rate, now + early).is_err());
                    }
                }
                // One more for the nanoseconds that the interval was rounded down by.
                let allowed = u128::from(burst) + 1
                    + (now - start).as_nanos() * u128::from(per_s) / 1_000_000_000;
                prop_assert!(taken <= allowed);
            }
        }
    }
}
