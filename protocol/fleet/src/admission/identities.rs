//! What is remembered of tenants and of callers: their rate and what they have in flight.
//!
//! Bounded: an identity that is idle and whose bucket is full again is worth nothing and is
//! forgotten; beyond the bound the one that has been idle longest goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rate::{Bucket, Rate};
use crate::batch::FlowId;

/// Idle identities that a newcomer sweeps out, if they are worth nothing: two for each that comes.
const SWEPT: usize = 2;

/// What one identity may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests a second; `None` for no limit.
    pub rate: Option<Rate>,
    /// Requests in flight at a time.
    pub concurrency: u32,
}

impl Quota {
    /// No rate, no bound on concurrency: the model's own limits hold.
    pub const UNLIMITED: Self = Self { rate: None, concurrency: u32::MAX };
}

/// Why an identity may not go on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Rate { wait: Duration },
    Concurrency,
    Full,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    bucket: Bucket,
    in_flight: u32,
    idle_since: Instant,
}

/// All identities of one kind.
#[derive(Debug)]
pub(super) struct Identities {
    entries: BTreeMap<Arc<str>, Entry>,
    idle: BTreeSet<(Instant, Arc<str>)>,
    max: usize,
    numbered: u64,
}

impl Identities {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: BTreeMap::new(), idle: BTreeSet::new(), max: max.max(1), numbered: 0 }
    }

    /// Whether this identity may begin a request; changes nothing.
    pub(super) fn check(&self, name: &str, quota: Quota, now: Instant) -> Result<(), Denied> {
        let Some(entry) = self.entries.get(name) else {
            let full = self.entries.len() >= self.max && self.idle.is_empty();
            return if full { Err(Denied::Full) } else { Ok(()) };
        };
        if entry.in_flight >= quota.concurrency {
            return Err(Denied::Concurrency);
        }
        let free = quota.rate.map_or(Ok(()), |rate| entry.bucket.check(rate, now));
        free.map_err(|wait| Denied::Rate { wait })
    }

    /// Begins a request that [`Identities::check`] allowed. Gives the identity's shared name.
    pub(super) fn enter(&mut self, name: &str, quota: Quota, now: Instant) -> Arc<str> {
        let known = self.entries.get_key_value(name).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| self.remember(name, now));
        let Some(entry) = self.entries.get_mut(&name) else { return name };
        if entry.in_flight == 0 {
            self.idle.remove(&(entry.idle_since, name.clone()));
        }
        entry.in_flight += 1;
        if let Some(rate) = quota.rate {
            entry.bucket.take(rate, now);
        }
        name
    }

    /// The identity's number, which stays the same while it is remembered; 0 for one that is not.
    pub(super) fn number_of(&self, name: &str) -> FlowId {
        FlowId(self.entries.get(name).map_or(0, |entry| entry.number))
    }

    /// Ends a request.
    pub(super) fn leave(&mut self, name: &Arc<str>, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if entry.in_flight == 0 {
            entry.idle_since = now;
            self.idle.insert((now, name.clone()));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many requests this identity has in flight.
    pub(super) fn in_flight(&self, name: &str) -> u32 {
        self.entries.get(name).map_or(0, |entry| entry.in_flight)
    }

    fn remember(&mut self, name: &str, now: Instant) -> Arc<str> {
        self.sweep(now);
        let name: Arc<str> = name.into();
        self.numbered += 1;
        let bucket = Bucket::full(now);
        let entry = Entry { number: self.numbered, bucket, in_flight: 0, idle_since: now };
        self.entries.insert(name.clone(), entry);
        self.idle.insert((now, name.clone()));
        name
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT {
            let Some((since, name)) = self.idle.first().cloned() else { return };
            let worthless = self.entries.get(&name).is_none_or(|e| e.bucket.is_full(now));
            if worthless || self.entries.len() >= self.max {
                self.idle.remove(&(since, name.clone()));
                self.entries.remove(&name);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { rate: Some(Rate { per_s: 1, burst: 1 }), concurrency: 2 };

    #[test]
    fn a_hundred_thousand_names_are_not_remembered() {
        let start = Instant::now();
        let mut identities = Identities::new(100);
        for i in 0..100_000_u64 {
            let now = start + Duration::from_millis(i);
            let name = format!("d{i}");
            identities.check(&name, QUOTA, now).unwrap();
            let name = identities.enter(&name, QUOTA, now);
            identities.leave(&name, now);
            assert!(identities.len() <= 100);
            assert_eq!(identities.idle.len(), identities.len());
        }
    }

    #[test]
    fn who_is_in_flight_is_not_forgotten() {
        let now = Instant::now();
        let mut identities = Identities::new(2);
        for name in ["a", "b"] {
            identities.enter(name, QUOTA, now);
        }
        assert_eq!(identities.check("c", QUOTA, now), Err(Denied::Full));
        identities.leave(&"a".into(), now);
        assert_eq!(identities.check("c", QUOTA, now), Ok(()));
        identities.enter("c", QUOTA, now);
        assert_eq!((identities.len(), identities.in_flight("b")), (2, 1));
    }
}
