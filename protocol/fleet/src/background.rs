//! How fast something is sent that may take its time, beside answers that may not: as fast as the way
//! allows without a queue. Priorities order what this end has not sent yet; they do not help an answer that
//! stands behind a download at the narrowest place on its way.
//!
//! What stands there shows in the time of a round, beyond the shortest one seen lately (the idea of LEDBAT,
//! RFC 6817, with a smaller target). Below the target the rate grows, quickly until the target was passed
//! once, slowly afterwards; beyond it, it falls, and returns to somewhat less than was too much: there is
//! no queue at all most of the time. It is judged once a round.

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
/// By how much the rate grows in a round before the target was passed once.
const SEARCH: f64 = 1.5;
/// What the rate falls to where the target is passed, so that the queue drains...
const FALL: f64 = 0.7;
/// ...and where it stays then: this much of what was too much, from where it grows slowly.
const ROOM: f64 = 0.85;
/// By how much it grows in a round below that.
const RETURN: f64 = 1.1;
/// By how much it grows in the first round beyond, by twice that in the second, and so on: what was too much
/// is approached slowly, and soon left behind where it no longer is.
const GROWTH: f64 = 0.005;
/// What a round took is believed for so long: the way may have become another.
const MEMORY: Duration = Duration::from_secs(10);
/// A wait that was missed is made up for at most so far.
const BURST: Duration = Duration::from_millis(2);

/// All that is sent in the background on one connection.
#[derive(Debug, Clone)]
pub struct Background {
    shortest: Shortest,
    rate: f64,
    /// What is known to leave room for others; nothing before the target was passed once.
    ceiling: Option<f64>,
    /// Rounds beyond it.
    beyond: u32,
    /// The rate is judged again from then on.
    judged_next: Instant,
    due: Instant,
}

/// The shortest round of the last one or two [`MEMORY`].
#[derive(Debug, Clone)]
struct Shortest {
    before: Duration,
    now: Duration,
    since: Instant,
}

impl Shortest {
    fn read(&mut self, round_trip: Duration, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) >= MEMORY {
            *self = Self { before: self.now, now: Duration::MAX, since: now };
        }
        self.now = self.now.min(round_trip);
        self.now.min(self.before)
    }
}

impl Background {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        let shortest = Shortest { before: Duration::MAX, now: Duration::MAX, since: now };
        Self { shortest, rate: RATE_FIRST, ceiling: None, beyond: 0, judged_next: now, due: now }
    }

    /// So many bytes were handed over, and a round takes so long; when the next may follow.
    pub fn handle_sent(&mut self, bytes: usize, round_trip: Duration, now: Instant) -> Instant {
        let shortest = self.shortest.read(round_trip, now);
        if now >= self.judged_next {
            let target = TARGET_MIN.max(shortest / TARGET_SHARE);
            let rounds =
                if round_trip - shortest > target { self.step_back() } else { self.grow() };
            self.rate = self.rate.clamp(RATE_MIN, RATE_MAX);
            self.judged_next = now + round_trip * rounds;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / self.rate);
        self.due
    }

    /// What was sent until now stands in the queue for another round, before the fall shows.
    fn step_back(&mut self) -> u32 {
        self.ceiling = Some(self.rate * ROOM);
        self.rate *= FALL;
        self.beyond = 0;
        2
    }

    fn grow(&mut self) -> u32 {
        self.rate *= match self.ceiling {
            None => SEARCH,
            Some(ceiling) if self.rate < ceiling => (ceiling / self.rate).min(RETURN),
            Some(_) => {
                self.beyond += 1;
                1.0 + GROWTH * f64::from(self.beyond)
            }
        };
        1
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
    fn a_longer_way_is_no_queue_for_ever() {
        let start = Instant::now();
        let mut background = Background::new(start);
        let mut now = start;
        let mut send_until = |end: Instant, round_trip| {
            while now < end {
                now = background.handle_sent(PIECE, round_trip, now).max(now + MS(1));
            }
            background.rate
        };
        let before = send_until(start + MS(1_000), MS(40));
        let moved = send_until(start + MS(15_000), MS(300));
        assert!(moved < before, "it looks like a queue at first");
        let found_out = send_until(start + MS(60_000), MS(300));
        assert!(found_out > 10.0 * moved, "{found_out} after {moved}");
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
