//! What becomes of telemetry on a device: what is recorded at all ([`sampling`]), when it is written down
//! ([`Group`]), what goes first where there is no room ([`shelf`]), and what is sent when ([`upload`]).
//!
//! Records are written in groups, to spare flash: what was recorded since the last one, [`SpoolPolicy::commit_after`]
//! or [`SpoolPolicy::commit_bytes`] at most, may be lost in a power cut, and nothing else.

pub mod sampling;
pub mod shelf;
pub mod upload;

use std::time::{Duration, Instant};

/// When records are written, and when a segment is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolPolicy {
    /// The longest that a record waits to be written.
    pub commit_after: Duration,
    /// The most bytes of records that wait to be written.
    pub commit_bytes: usize,
    /// A segment is closed, and can be sent, when it is that old.
    pub segment_age: Duration,
    /// The same by its size.
    pub segment_bytes: usize,
}

impl Default for SpoolPolicy {
    fn default() -> Self {
        Self {
            commit_after: Duration::from_secs(30),
            commit_bytes: 64 << 10,
            segment_age: Duration::from_secs(3600),
            segment_bytes: 256 << 10,
        }
    }
}

impl SpoolPolicy {
    /// Whether a segment that was begun so long ago, and has so many bytes, takes no more.
    pub fn closes(&self, age: Duration, size_bytes: usize) -> bool {
        age >= self.segment_age || size_bytes >= self.segment_bytes
    }
}

/// The records that wait to be written.
#[derive(Debug, Clone, Default)]
pub struct Group {
    bytes: usize,
    first: Option<Instant>,
}

impl Group {
    /// One more of so many bytes.
    pub fn handle_record(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.first.get_or_insert(now);
    }

    /// Whether they must be written now.
    pub fn is_due(&self, policy: &SpoolPolicy, now: Instant) -> bool {
        self.bytes >= policy.commit_bytes || self.poll_timeout(policy).is_some_and(|due| due <= now)
    }

    /// When they must be written at the latest; nothing where there are none.
    pub fn poll_timeout(&self, policy: &SpoolPolicy) -> Option<Instant> {
        self.first.map(|first| first + policy.commit_after)
    }

    /// They were taken.
    pub fn handle_taken(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    #[test]
    fn a_group_is_written_when_it_is_old_or_large() {
        let (policy, start) = (SpoolPolicy::default(), Instant::now());
        let mut group = Group::default();
        assert!(!group.is_due(&policy, start) && group.poll_timeout(&policy).is_none());
        group.handle_record(10, start);
        group.handle_record(10, start + Duration::from_secs(20));
        assert!(!group.is_due(&policy, start + Duration::from_millis(29_999)));
        assert!(group.is_due(&policy, start + Duration::from_secs(30)));
        group.handle_taken();
        assert!(!group.is_due(&policy, start + Duration::from_secs(60)));
        group.handle_record(64 << 10, start);
        assert!(group.is_due(&policy, start));
        assert!(
            policy.closes(Duration::from_secs(3600), 0) && policy.closes(Duration::ZERO, 1 << 20)
        );
        assert!(!policy.closes(Duration::from_secs(3599), 1000));
    }
}
