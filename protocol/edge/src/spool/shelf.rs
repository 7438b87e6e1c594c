//! The segments that wait to be sent: what goes first, and what is given up where there is no room.
//!
//! What is worth less is given up first: samples before events, events before aggregates, counters last; among equals the
//! oldest. Oldest is the lowest number: a clock that jumps orders nothing. Age is counted in hours that the device was
//! in operation, for the same reason.

use std::collections::BTreeMap;
use telemetry::Class;

/// What may lie on the shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShelfPolicy {
    /// All segments together.
    pub bytes: u64,
    /// Samples alone, which are the largest.
    pub sample_bytes: u64,
    /// Hours of operation that a segment waits.
    pub hours: u64,
}

impl Default for ShelfPolicy {
    fn default() -> Self {
        Self { bytes: 64 << 20, sample_bytes: 32 << 20, hours: 30 * 24 }
    }
}

/// A segment that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub segment: u64,
    /// What is in it.
    pub class: Class,
    /// Its bytes on the disk.
    pub bytes: u64,
    /// Its records.
    pub records: u64,
    /// The hour of operation in which it was closed.
    pub hour: u64,
}

/// Why records are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The queue between requests and the spool was full.
    Queue,
    /// The shelf has no room.
    Room,
    /// They waited too long.
    Age,
    /// The disk took nothing.
    Disk,
    /// What lay on the disk is not what was written.
    Damage,
    /// The cloud takes no such segment.
    Refused,
}

impl Cause {
    /// A word for metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Queue => "queue",
            Cause::Room => "room",
            Cause::Age => "age",
            Cause::Disk => "disk",
            Cause::Damage => "damage",
            Cause::Refused => "refused",
        }
    }

    /// The cause of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Queue, Self::Room, Self::Age, Self::Disk, Self::Damage, Self::Refused];
        all.into_iter().find(|cause| cause.as_str() == name)
    }
}

/// All that wait, by class and number.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    entries: BTreeMap<(Class, u64), Entry>,
    bytes: u64,
    sample_bytes: u64,
}

impl Shelf {
    /// One more.
    pub fn put(&mut self, entry: Entry) {
        self.take(entry.class, entry.segment);
        self.bytes += entry.bytes;
        self.sample_bytes += sample_bytes(&entry);
        self.entries.insert((entry.class, entry.segment), entry);
    }

    /// One less: it was sent, or given up.
    pub fn take(&mut self, class: Class, segment: u64) -> Option<Entry> {
        let entry = self.entries.remove(&(class, segment))?;
        self.bytes -= entry.bytes;
        self.sample_bytes -= sample_bytes(&entry);
        Some(entry)
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order in which they are sent: what is worth most first, among equals the oldest.
    pub fn in_order(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The next to be given up, and why; nothing while all have room. Called until it says nothing.
    pub fn poll_victim(&self, policy: &ShelfPolicy, hour: u64) -> Option<(Entry, Cause)> {
        let oldest_of = |class: Class| {
            self.entries.range((class, 0)..=(class, u64::MAX)).next().map(|(_, entry)| entry)
        };
        let is_old = |entry: &&Entry| hour.saturating_sub(entry.hour) > policy.hours;
        if let Some(old) = Class::ALL.into_iter().filter_map(oldest_of).find(is_old) {
            return Some((old.clone(), Cause::Age));
        }
        if self.sample_bytes > policy.sample_bytes {
            return oldest_of(Class::Samples).map(|entry| (entry.clone(), Cause::Room));
        }
        if self.bytes > policy.bytes {
            let least = Class::ALL.into_iter().rev().find_map(oldest_of);
            return least.map(|entry| (entry.clone(), Cause::Room));
        }
        None
    }
}

fn sample_bytes(entry: &Entry) -> u64 {
    if entry.class == Class::Samples { entry.bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(class: Class, segment: u64, bytes: u64, hour: u64) -> Entry {
        Entry { segment, class, bytes, records: segment, hour }
    }

    fn victims(shelf: &mut Shelf, policy: &ShelfPolicy, hour: u64) -> Vec<(u64, Cause)> {
        let mut victims = Vec::new();
        while let Some((entry, cause)) = shelf.poll_victim(policy, hour) {
            shelf.take(entry.class, entry.segment).unwrap();
            victims.push((entry.segment, cause));
        }
        victims
    }

    #[test]
    fn what_is_worth_least_goes_first_and_among_equals_the_oldest() {
        let policy = ShelfPolicy { bytes: 100, sample_bytes: 50, hours: 10 };
        let mut shelf = Shelf::default();
        shelf.put(entry(Class::Counters, 1, 20, 0));
        shelf.put(entry(Class::Aggregates, 2, 20, 0));
        shelf.put(entry(Class::Events, 3, 40, 0));
        shelf.put(entry(Class::Events, 4, 40, 5));
        shelf.put(entry(Class::Samples, 5, 30, 5));
        shelf.put(entry(Class::Samples, 6, 30, 6));
        let order: Vec<u64> = shelf.in_order().map(|entry| entry.segment).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6]);
        // Samples have room of their own; the rest is made of what is left of them, then of events.
        let gone = victims(&mut shelf, &policy, 6);
        assert_eq!(gone, [(5, Cause::Room), (6, Cause::Room), (3, Cause::Room)]);
        assert_eq!((shelf.bytes(), shelf.len()), (80, 3));
        // Age is the hours in which the device was in operation.
        assert_eq!(victims(&mut shelf, &policy, 11), [(1, Cause::Age), (2, Cause::Age)]);
        assert_eq!(victims(&mut shelf, &policy, 16), [(4, Cause::Age)]);
        assert!(shelf.is_empty() && shelf.bytes() == 0);
    }

    #[test]
    fn every_cause_has_a_name_that_is_read() {
        for name in ["queue", "room", "age", "disk", "damage", "refused"] {
            assert_eq!(Cause::from_name(name).unwrap().as_str(), name);
        }
    }
}
