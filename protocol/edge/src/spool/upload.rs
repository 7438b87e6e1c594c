//! What is sent when: as much as the owner's windows and budgets let through ([`crate::download`] counts them), what is
//! worth most first; on a metered link only what is small; never before the cloud said that it takes more.

use super::shelf::{Entry, Shelf};
use crate::backoff::Backoff;
use crate::download::{DownloadPolicy, Downloads, Permit, Spent, Waiting};
use std::time::{Duration, Instant};
use telemetry::Class;

/// What is offered at once: segments, and their bytes.
const BATCH_SEGMENTS: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
/// Between two attempts that failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// The longest that the cloud's word to wait is believed.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the owner allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadPolicy {
    /// Windows of the day, and bytes in a day and a month.
    pub bounds: DownloadPolicy,
    /// The link is paid by the byte: events and samples stay here.
    pub metered: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Offer these, in this order.
    Send(Vec<Entry>),
    /// Nothing before that, or before something is put onto the shelf.
    Wait {
        /// When to ask again; nothing while only something new could change it.
        until: Option<Instant>,
        /// Why not, where the owner's bounds are the reason.
        why: Option<Waiting>,
    },
}

/// Paces what is sent.
#[derive(Debug)]
pub struct Uploads {
    policy: UploadPolicy,
    bounds: Downloads,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Uploads {
    /// Goes on from what was written down as spent.
    pub fn new(policy: UploadPolicy, saved: Option<Spent>) -> Self {
        let bounds = Downloads::new(policy.bounds.clone(), saved);
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        Self { policy, bounds, backoff, not_before: None }
    }

    /// From now on something else is allowed.
    pub fn set_policy(&mut self, policy: UploadPolicy) {
        self.bounds.set_policy(policy.bounds.clone());
        self.policy = policy;
    }

    /// What to do now; `now_s` is the fleet's time.
    pub fn poll(&mut self, shelf: &Shelf, now: Instant, now_s: i64) -> Action {
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return Action::Wait { until: Some(until), why: None };
        }
        let metered = self.policy.metered;
        let may_go = |entry: &&Entry| !metered || entry.class <= Class::Aggregates;
        let Some(first) = shelf.in_order().find(may_go) else {
            return Action::Wait { until: None, why: None };
        };
        let most = match self.bounds.permit(now_s) {
            // One segment goes over the edge of the day at most, or a large one would never go.
            Permit::Go { bytes } => bytes.min(BATCH_BYTES).max(first.bytes),
            Permit::Wait { why, until_s } => {
                let wait = u64::try_from(until_s.saturating_sub(now_s)).unwrap_or(0).max(1);
                let until = now.checked_add(Duration::from_secs(wait));
                return Action::Wait { until, why: Some(why) };
            }
        };
        let mut left = most;
        let fits = |entry: &&Entry| {
            let fits = entry.bytes <= left;
            left = left.saturating_sub(entry.bytes);
            fits
        };
        let batch = shelf.in_order().filter(may_go).take(BATCH_SEGMENTS).take_while(fits);
        Action::Send(batch.cloned().collect())
    }

    /// What must be written down before so many bytes are sent; nothing while it is already.
    pub fn save(&mut self, bytes: u64) -> Option<Spent> {
        self.bounds.save(bytes)
    }

    /// So many bytes were sent.
    pub fn handle_sent(&mut self, bytes: u64) {
        self.bounds.spend(bytes);
    }

    /// Something was taken.
    pub fn handle_taken(&mut self) {
        self.backoff.reset();
        self.not_before = None;
    }

    /// An attempt failed; `entropy` spreads many devices' next ones.
    pub fn handle_failed(&mut self, now: Instant, entropy: u64) {
        self.not_before = Some(now + self.backoff.next_delay(entropy));
    }

    /// The cloud asks for patience.
    pub fn handle_retry_after(&mut self, after: Duration, now: Instant) {
        self.not_before = Some(now + after.min(WAIT_MAX));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    fn shelf(bytes: &[(Class, u64)]) -> Shelf {
        let mut shelf = Shelf::default();
        for (segment, (class, bytes)) in (1..).zip(bytes) {
            let (class, bytes) = (*class, *bytes);
            shelf.put(Entry { segment, class, bytes, records: 1, hour: 0 });
        }
        shelf
    }

    fn sent(action: Action) -> Vec<u64> {
        match action {
            Action::Send(batch) => batch.iter().map(|entry| entry.segment).collect(),
            Action::Wait { .. } => Vec::new(),
        }
    }

    #[test]
    fn what_is_worth_most_goes_first_within_what_is_allowed() {
        let shelf = shelf(&[(Class::Samples, 900), (Class::Events, 50), (Class::Counters, 10)]);
        let (now, mut free) = (Instant::now(), Uploads::new(UploadPolicy::default(), None));
        assert_eq!(sent(free.poll(&shelf, now, 0)), [3, 2, 1]);
        free.set_policy(UploadPolicy { metered: true, ..Default::default() });
        assert_eq!(sent(free.poll(&shelf, now, 0)), [3]);
        let bounds = DownloadPolicy { bytes_per_day: 100, ..Default::default() };
        let mut bounded = Uploads::new(UploadPolicy { bounds, metered: false }, None);
        assert_eq!(sent(bounded.poll(&shelf, now, 0)), [3, 2]);
        assert!(bounded.save(60).is_some());
        bounded.handle_sent(100);
        let waits = bounded.poll(&shelf, now, 3600);
        let until = Some(now + Duration::from_secs(23 * 3600));
        assert_eq!(waits, Action::Wait { until, why: Some(Waiting::Day) });
        assert_eq!(sent(bounded.poll(&shelf, now, 24 * 3600)), [3, 2]);
    }

    #[test]
    fn the_clouds_word_to_wait_is_obeyed_and_failures_back_off() {
        let shelf = shelf(&[(Class::Counters, 10)]);
        let (now, mut uploads) = (Instant::now(), Uploads::new(UploadPolicy::default(), None));
        uploads.handle_retry_after(Duration::from_secs(90), now);
        assert!(sent(uploads.poll(&shelf, now + Duration::from_secs(89), 0)).is_empty());
        assert_eq!(sent(uploads.poll(&shelf, now + Duration::from_secs(90), 0)), [1]);
        uploads.handle_retry_after(Duration::from_secs(1 << 40), now);
        assert_eq!(sent(uploads.poll(&shelf, now + WAIT_MAX, 0)), [1]);
        for _ in 0..20 {
            uploads.handle_failed(now, u64::MAX);
        }
        assert!(sent(uploads.poll(&shelf, now, 0)).is_empty());
        assert_eq!(sent(uploads.poll(&shelf, now + 2 * RETRY_MAX, 0)), [1]);
        uploads.handle_taken();
        assert_eq!(sent(uploads.poll(&shelf, now, 0)), [1]);
        let none = Shelf::default();
        assert_eq!(uploads.poll(&none, now, 0), Action::Wait { until: None, why: None });
    }
}
