//! Exponential back-off with full jitter: a fleet that lost its cloud does not return as one wave.
//!
//! Source of the formula: Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015):
//! `delay = random(0, min(cap, base * 2^attempt))`; here at least a tenth of that, so that a run of
//! small draws cannot become a busy loop.

use std::time::Duration;

/// The waits between the attempts of one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Waits that grow from `base` to at most `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// How long to wait before the next attempt; `entropy` is a random number.
    pub fn next_delay(&mut self, entropy: u64) -> Duration {
        let factor = 1u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        self.attempt = self.attempt.saturating_add(1).min(31);
        let share = (entropy >> 11) as f64 / (1u64 << 53) as f64; // uniform in 0..1
        ceiling.mul_f64(0.1 + 0.9 * share)
    }

    /// After a success the next wait is short again.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_stay_between_their_bounds() {
        for (entropy, share) in [(0, 0.1), (u64::MAX, 1.0)] {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
            let delays: Vec<_> =
                (0..100).map(|_| backoff.next_delay(entropy).as_millis()).collect();
            let ideal = [100.0, 200.0, 400.0, 800.0, 1600.0, 2000.0, 2000.0];
            for (delay, ideal) in delays.iter().zip(ideal) {
                assert!((*delay as f64 - ideal * share).abs() <= 1.0, "{delays:?}");
            }
            assert_eq!(delays[99], delays[6]);
            backoff.reset();
            assert_eq!(backoff.next_delay(entropy).as_millis(), delays[0]);
        }
    }
}
