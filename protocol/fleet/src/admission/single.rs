//! Admission to one model by its queue alone: what the server uses until it is driven by
//! [`super::Gate`], which knows who asks.

use protocol::problem::{Problem, ProblemCode};
use std::time::Duration;

/// The state of one model's queue.
#[derive(Debug, Clone)]
pub struct Admission {
    limit: u32,
    sessions: u32,
    in_flight: u32,
    /// Smoothed time of one run; zero until the first one ended.
    service: Duration,
}

impl Admission {
    /// At most `limit` requests at a time, worked on by `sessions` sessions.
    pub fn new(limit: u32, sessions: u32) -> Self {
        Self { limit, sessions: sessions.max(1), in_flight: 0, service: Duration::ZERO }
    }

    /// Takes a request that must be answered within `remaining`, or refuses it. Whoever is taken
    /// must be given back with [`Admission::release`].
    ///
    /// # Errors
    /// [`ProblemCode::Overloaded`] or [`ProblemCode::DeadlineExceeded`].
    pub fn admit(&mut self, remaining: Duration) -> Result<(), Problem> {
        let wait = self.expected_wait();
        if self.in_flight >= self.limit {
            let text = format!("{} requests for this model are in progress", self.in_flight);
            return Err(Problem::new(ProblemCode::Overloaded, text)
                .hint("try again after retry_after_ms")
                .retry_after_ms(to_ms(wait)));
        }
        if wait + self.service > remaining {
            let text = format!(
                "the deadline is in {} ms, an answer would take about {} ms",
                remaining.as_millis(),
                (wait + self.service).as_millis()
            );
            return Err(Problem::new(ProblemCode::DeadlineExceeded, text)
                .hint("allow more time, or try again after retry_after_ms")
                .retry_after_ms(to_ms(wait)));
        }
        self.in_flight += 1;
        Ok(())
    }

    /// The end of a request that was taken; `ran` is the time of its run, if it ran.
    pub fn release(&mut self, ran: Option<Duration>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(ran) = ran {
            // Exponential smoothing with weight 1/8, as TCP smooths its round trip (RFC 6298).
            self.service = match self.service {
                Duration::ZERO => ran,
                service => service * 7 / 8 + ran / 8,
            };
        }
    }

    /// Requests taken and not given back.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn expected_wait(&self) -> Duration {
        self.service * (self.in_flight / self.sessions)
    }
}

fn to_ms(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_full_queue_refuses_with_the_time_to_wait() {
        let mut admission = Admission::new(2, 1);
        admission.release(Some(MS(10)));
        assert!(admission.admit(MS(1000)).is_ok());
        assert!(admission.admit(MS(1000)).is_ok());
        let refused = admission.admit(MS(1000)).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (ProblemCode::Overloaded, 20));
        admission.release(Some(MS(10)));
        assert!(admission.admit(MS(1000)).is_ok());
    }

    #[test]
    fn what_cannot_arrive_in_time_is_not_begun() {
        let mut admission = Admission::new(64, 1);
        assert!(admission.admit(MS(1)).is_ok(), "nothing is known yet");
        admission.release(Some(MS(8)));
        assert_eq!(admission.admit(MS(5)).unwrap_err().code, ProblemCode::DeadlineExceeded);
        assert!(admission.admit(MS(8)).is_ok());
        assert!(admission.admit(MS(15)).is_err(), "one is ahead");
        assert_eq!(admission.in_flight(), 1);
    }
}
