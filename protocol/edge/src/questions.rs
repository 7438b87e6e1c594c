//! How often a device answers what its operator asks, whatever the cloud allows: a check runs for seconds, and a cloud that
//! somebody broke into should not keep a battery busy.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers that a device gives within [`OFTEN_WITHIN`].
pub const OFTEN_MAX: usize = 60;
/// The time in which they are counted: an hour.
pub const OFTEN_WITHIN: Duration = Duration::from_secs(3600);

/// What a device may still answer.
#[derive(Debug, Default)]
pub struct Allowance {
    answered: VecDeque<Instant>,
}

impl Allowance {
    /// A question came, which is counted where it may be answered.
    ///
    /// # Errors
    /// How long it takes until one may be.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.answered.front().is_some_and(|first| now - *first >= OFTEN_WITHIN) {
            self.answered.pop_front();
        }
        match self.answered.front() {
            Some(first) if self.answered.len() >= OFTEN_MAX => {
                Err(OFTEN_WITHIN.saturating_sub(now - *first))
            }
            _ => {
                self.answered.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // a test has to begin somewhere
    fn so_many_an_hour_and_no_more() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut allowance = Allowance::default();
        for _ in 0..OFTEN_MAX {
            assert_eq!(allowance.take(at(10)), Ok(()));
        }
        assert_eq!(allowance.take(at(11)), Err(Duration::from_secs(3599)));
        assert_eq!(allowance.take(at(3610)), Ok(()));
    }
}
