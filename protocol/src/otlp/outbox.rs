//! What waits for the collector: sent in batches, again where it failed, and thrown away beyond a
//! bound. One batch is under way at a time. Whoever sends calls [`Outbox::poll`] and says what became
//! of the batch.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much waits, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxPolicy {
    /// Items that wait or are under way; one more is thrown away.
    pub items_max: usize,
    /// Items of a batch.
    pub batch_max: usize,
    /// How long the first item of a batch waits for others.
    pub linger: Duration,
    /// The wait after the first failure; each further one is twice as long.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// How long a batch is tried before it is thrown away.
    pub patience: Duration,
}

impl Default for OutboxPolicy {
    fn default() -> Self {
        Self {
            items_max: 2048,
            batch_max: 512,
            linger: Duration::from_secs(1),
            retry_first: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }
}

/// Items on their way.
#[derive(Debug)]
pub struct Outbox<T> {
    policy: OutboxPolicy,
    waiting: VecDeque<T>,
    /// When the first of those who wait came.
    since: Option<Instant>,
    flight: Flight<T>,
    finishing: bool,
}

/// The batch that left the queue.
#[derive(Debug)]
enum Flight<T> {
    None,
    /// Somebody sends so many.
    UnderWay(usize, Tries),
    /// It waits to be sent again.
    Again(Vec<T>, Tries, Instant),
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    failures: u32,
    since: Instant,
}

impl<T> Outbox<T> {
    /// Nothing waits.
    pub fn new(policy: OutboxPolicy) -> Self {
        let (waiting, flight) = (VecDeque::new(), Flight::None);
        Self { policy, waiting, since: None, flight, finishing: false }
    }

    /// Takes an item in; false where there is no room.
    pub fn handle_item(&mut self, item: T, now: Instant) -> bool {
        if self.len() >= self.policy.items_max {
            return false;
        }
        self.since.get_or_insert(now);
        self.waiting.push_back(item);
        true
    }

    /// Items that are neither delivered nor thrown away.
    pub fn len(&self) -> usize {
        let flying = match &self.flight {
            Flight::None => 0,
            Flight::UnderWay(items, _) => *items,
            Flight::Again(batch, ..) => batch.len(),
        };
        self.waiting.len() + flying
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on nothing waits for others, and nothing is tried again.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// A batch that is to be sent now.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<T>> {
        if self.poll_timeout(now)? > now {
            return None;
        }
        let flight = std::mem::replace(&mut self.flight, Flight::None);
        let (batch, tries) = match flight {
            Flight::Again(batch, tries, _) => (batch, tries),
            Flight::UnderWay(..) | Flight::None => {
                (self.next(now), Tries { failures: 0, since: now })
            }
        };
        self.flight = Flight::UnderWay(batch.len(), tries);
        Some(batch)
    }

    fn next(&mut self, now: Instant) -> Vec<T> {
        let items = self.waiting.len().min(self.policy.batch_max);
        let batch = self.waiting.drain(..items).collect();
        // The rest waited for the way to be free; how long is of no interest.
        self.since = (!self.waiting.is_empty()).then_some(now);
        batch
    }

    /// When there may be a batch to send; `None` until something happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match &self.flight {
            Flight::UnderWay(..) => None,
            Flight::Again(.., at) => Some(if self.finishing { now } else { *at }),
            Flight::None => {
                let full = self.waiting.len() >= self.policy.batch_max;
                let since = self.since?;
                Some(if full || self.finishing { now } else { since + self.policy.linger })
            }
        }
    }

    /// The batch was delivered, or refused for good.
    pub fn handle_done(&mut self) {
        self.flight = Flight::None;
    }

    /// The batch was not delivered, and may be later: after `wait` if the collector said so. How many
    /// items were thrown away; `entropy` spreads those who fail together.
    pub fn handle_failed(
        &mut self,
        batch: Vec<T>,
        wait: Option<Duration>,
        entropy: u64,
        now: Instant,
    ) -> usize {
        let Flight::UnderWay(_, Tries { failures, since }) = self.flight else { return 0 };
        let wait =
            wait.unwrap_or_else(|| self.backoff(failures, entropy)).min(self.policy.retry_max);
        if self.finishing || (now + wait).duration_since(since) > self.policy.patience {
            self.flight = Flight::None;
            return batch.len();
        }
        let tries = Tries { failures: failures + 1, since };
        self.flight = Flight::Again(batch, tries, now + wait);
        0
    }

    /// Between a half and the whole of the doubled wait.
    fn backoff(&self, failures: u32, entropy: u64) -> Duration {
        let doubled = self.policy.retry_first.saturating_mul(1 << failures.min(16));
        let whole = doubled.min(self.policy.retry_max);
        let share = 0.5 + (entropy >> 11) as f64 / (1_u64 << 54) as f64;
        whole.mul_f64(share)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn policy() -> OutboxPolicy {
        OutboxPolicy { items_max: 5, batch_max: 3, patience: 10 * S, ..OutboxPolicy::default() }
    }

    fn outbox(items: u32, now: Instant) -> Outbox<u32> {
        let mut outbox = Outbox::new(policy());
        assert!((0..items).all(|item| outbox.handle_item(item, now)));
        outbox
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_has_waited() {
        let now = Instant::now();
        let mut outbox = outbox(1, now);
        assert_eq!(outbox.poll(now), None);
        assert_eq!(outbox.poll_timeout(now), Some(now + S));
        assert_eq!(outbox.poll(now + S), Some(vec![0]));
        assert!((1..5).all(|item| outbox.handle_item(item, now + S)));
        assert!(!outbox.handle_item(9, now + S), "what is under way counts");
        assert_eq!(outbox.poll(now + 9 * S), None, "one batch at a time");
        outbox.handle_done();
        assert_eq!(outbox.poll(now + S), Some(vec![1, 2, 3]));
        outbox.handle_done();
        assert_eq!((outbox.poll(now + S), outbox.len()), (None, 1));
    }

    #[test]
    fn failures_wait_longer_each_time_and_end() {
        let now = Instant::now();
        let mut outbox = outbox(3, now);
        let mut at = now;
        for wait in [S / 2, S, 2 * S, 4 * S] {
            let batch = outbox.poll(at).unwrap();
            assert_eq!(batch, [0, 1, 2]);
            assert_eq!(outbox.handle_failed(batch, None, 0, at), 0);
            assert_eq!(outbox.poll_timeout(at), Some(at + wait));
            assert_eq!(outbox.poll(at), None);
            at += wait;
        }
        let batch = outbox.poll(at).unwrap();
        assert_eq!(outbox.handle_failed(batch, None, u64::MAX, at), 3, "its patience is at an end");
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_collectors_word_holds_within_bounds() {
        let now = Instant::now();
        let mut outbox = outbox(3, now);
        let batch = outbox.poll(now).unwrap();
        outbox.handle_failed(batch, Some(7 * S), 0, now);
        assert_eq!(outbox.poll_timeout(now), Some(now + 7 * S));
        let batch = outbox.poll(now + 7 * S).unwrap();
        assert_eq!(outbox.handle_failed(batch, Some(900 * S), 0, now + 7 * S), 3);
    }

    #[test]
    fn at_the_end_nothing_waits_and_nothing_is_tried_again() {
        let now = Instant::now();
        let mut outbox = outbox(5, now);
        let batch = outbox.poll(now).unwrap();
        outbox.handle_failed(batch, None, 0, now);
        outbox.finish();
        let batch = outbox.poll(now).unwrap();
        assert_eq!(outbox.handle_failed(batch, None, 0, now), 3);
        assert_eq!(outbox.poll(now), Some(vec![3, 4]));
        outbox.handle_done();
        assert!(outbox.is_empty());
    }
}
