//! How fast something is sent that may take its time, beside answers that may not: as fast as the way
//! allows without a queue. Priorities order what this end has not sent yet; they do not help an answer that
//! stands behind a download at the narrowest place on its way.
//!
//! What stands there shows in the time of a round, beyond the shortest one seen (the idea of LEDBAT,
//! RFC 6817, with a smaller target). Below the target the rate grows, quickly until the target was passed
//! once, slowly afterwards; beyond it, it falls. It is judged once a round.

use std::time::{Duration, Instant};

/// The least that is sent, bytes a second: a download never stands still.
const RATE_MIN: f64 = 32.0 * 1024.0;
/// At first.
const RATE_FIRST: f64 = 256.0 * 1024.0;
/// More than any network: not limited.
const RATE_MAX: f64 = 1e10;
/// A queue of this much of a round is the target...
const TARGET_SHARE: u32 = 16;
/// ...but no less than this, which is within the noise of a round.
const TARGET_MIN: Duration = Duration::from_millis(3);
/// By how much the rate grows in a round before, and after, the target was passed once; and falls.
const SEARCH: f64 = 1.5;
const GROWTH: f64 = 1.05;
const FALL: f64 = 0.7;
/// A wait that was missed is made up for at most so far.
const BURST: Duration = Duration::from_millis(2);

/// One thing that is being sent.
#[derive(Debug, Clone)]
pub struct Background {
    shortest: Duration,
    rate: f64,
    searching: bool,
    judged: Instant,
    due: Instant,
}

impl Background {
    /// It begins now.
    pub fn new(now: Instant) -> Self {
        Self { shortest: Duration::MAX, rate: RATE_FIRST, searching: true, judged: now, due: now }
    }

    /// So many bytes were handed over, and a round takes so long; when the next may follow.
    pub fn handle_sent(&mut self, bytes: usize, round_trip: Duration, now: Instant) -> Instant {
        self.shortest = self.shortest.min(round_trip);
        if now.saturating_duration_since(self.judged) >= round_trip {
            self.judged = now;
            self.judge(round_trip);
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate);
        self.due
    }

    fn judge(&mut self, round_trip: Duration) {
        let target = TARGET_MIN.max(self.shortest / TARGET_SHARE);
        let factor = if round_trip.saturating_sub(self.shortest) > target {
            self.searching = false;
            FALL
        } else if self.searching {
            SEARCH
        } else {
            GROWTH
        };
        self.rate = (self.rate * factor).clamp(RATE_MIN, RATE_MAX);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const PIECE: usize = 16 << 10;

    /// Sends for some seconds over a way of 40 ms and so many bytes a second, of which others take a
    /// share; how much was sent, and the mean queue, once the rate has settled.
    fn send(way: f64, others: f64) -> (f64, Duration) {
        let start = Instant::now();
        let mut background = Background::new(start);
        let (mut now, mut free_at) = (start, start);
        let (mut sent, mut queue, mut pieces) = (0.0, Duration::ZERO, 0_u32);
        while now < start + MS(10_000) {
            free_at = free_at.max(now) + Duration::from_secs_f64(PIECE as f64 / (way - others));
            let waits = free_at - now;
            if now > start + MS(2_000) {
                sent += PIECE as f64;
                queue += waits;
                pieces += 1;
            }
            now = background.handle_sent(PIECE, MS(40) + waits, now).max(now);
        }
        (sent / 8.0, queue / pieces.max(1))
    }

    #[test]
    fn most_of_the_way_is_used_and_hardly_any_queue() {
        for (way, others) in [(6e6, 0.0), (6e6, 4e6), (100e6, 0.0)] {
            let (rate, queue) = send(way, others);
            assert!(rate > 0.6 * (way - others), "{rate} of {way} - {others}");
            assert!(queue < MS(10), "{queue:?} at {way} - {others}");
        }
    }

    #[test]
    fn it_never_stands_still() {
        let (rate, _) = send(6e6, 6e6 - 20e3);
        assert!(rate > 10e3, "{rate}");
    }

    #[test]
    fn what_has_no_queue_is_not_limited() {
        let start = Instant::now();
        let mut background = Background::new(start);
        let mut now = start;
        for _ in 0..200 {
            now += MS(1);
            background.handle_sent(PIECE, MS(1), now);
        }
        let due = background.handle_sent(PIECE, MS(1), now);
        assert!(due <= now, "{:?}", due - now);
    }
}
