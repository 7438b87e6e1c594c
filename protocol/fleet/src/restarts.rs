//! When a worker that ended is started again.
//!
//! A worker that somebody or the system ended (`kill -9`, no memory left) says nothing about its
//! model, so the next one starts at once if this one had lived for a while. One that crashed, hung or
//! did not load may do so again: the waits double, and after [`FAULTS_MAX`] such ends within
//! `WINDOW` the model is held back, for longer each time, and every request hears why at once.
//! It forgives by itself: a restart would end the same way, but a person may have mended the machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A worker that lived for so long is started again at once.
const SETTLED: Duration = Duration::from_secs(1);
/// The first wait, which doubles.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Ends of the model's own making within `WINDOW`, before it is held back.
pub const FAULTS_MAX: usize = 5;
/// What counts as often.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a model is held back at first, which doubles.
const HOLD_FIRST: Duration = Duration::from_secs(30);
/// How long it is held back at most.
const HOLD_MAX: Duration = Duration::from_secs(600);
/// After so long without a fault it is as if there had been none.
const FORGIVEN: Duration = Duration::from_secs(1800);

/// Whose doing the end of a worker was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Somebody's or the system's: it was killed.
    Outside,
    /// The model's own: it crashed, hung, or did not load.
    Own,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start it again after this wait.
    Restart(Duration),
    /// Refuse its requests for so long, then start it again.
    HoldBack(Duration),
}

/// The ends of one model's workers.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    faults: VecDeque<Instant>,
    /// Ends of any kind without a settled worker in between.
    hasty: u32,
    holds: u32,
}

impl Restarts {
    /// A worker ended that had lived for `lived`.
    pub fn handle_end(&mut self, end: End, lived: Duration, now: Instant) -> Next {
        let quiet = |last: &Instant| now.saturating_duration_since(*last) >= FORGIVEN;
        if self.faults.back().is_some_and(quiet) {
            *self = Self::default();
        }
        let settled = lived >= SETTLED;
        self.hasty = if settled { 0 } else { self.hasty.saturating_add(1) };
        if end == End::Own {
            self.faults.push_back(now);
            if self.faults.len() > FAULTS_MAX {
                self.faults.pop_front();
            }
            if self.is_too_often(now) {
                self.faults.drain(..FAULTS_MAX - 1); // the last one is remembered, to be forgiven
                return Next::HoldBack(self.hold());
            }
        }
        Next::Restart(if settled {
            Duration::ZERO
        } else {
            doubled(WAIT_FIRST, self.hasty - 1, WAIT_MAX)
        })
    }

    fn is_too_often(&self, now: Instant) -> bool {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < WINDOW;
        self.faults.iter().filter(recent).count() >= FAULTS_MAX
    }

    fn hold(&mut self) -> Duration {
        self.holds = self.holds.saturating_add(1);
        doubled(HOLD_FIRST, self.holds - 1, HOLD_MAX)
    }
}

fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(most)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use Next::{HoldBack, Restart};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_is_killed_from_outside_is_back_at_once_however_often() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for round in 0..100 {
            let next = restarts.handle_end(End::Outside, s(2), start + s(2 * round));
            assert_eq!(next, Restart(Duration::ZERO));
        }
    }

    #[test]
    fn who_never_settles_is_started_ever_more_slowly() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut next = || restarts.handle_end(End::Outside, Duration::ZERO, start);
        let waits: Vec<_> = (0..9).map(|_| next()).collect();
        let ms = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(waits, ms.map(|ms| Restart(Duration::from_millis(ms))));
    }

    #[test]
    fn crashes_hold_a_model_back_for_longer_each_time_until_it_behaves() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        let mut crash = |after: u64| {
            now += s(after);
            restarts.handle_end(End::Own, s(1), now)
        };
        for _ in 1..FAULTS_MAX {
            assert_eq!(crash(2), Restart(Duration::ZERO));
        }
        assert_eq!(crash(2), HoldBack(s(30)));
        for _ in 2..FAULTS_MAX {
            assert_eq!(crash(2), Restart(Duration::ZERO));
        }
        assert_eq!(crash(2), HoldBack(s(60)));
        assert_eq!(crash(1800), Restart(Duration::ZERO));
        assert_eq!(crash(61), Restart(Duration::ZERO)); // far apart: no more than a nuisance
    }
}
