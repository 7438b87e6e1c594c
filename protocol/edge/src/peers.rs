//! Devices of one site that carry chunks to each other: whom to ask, whom to leave alone, and whom to serve.
//!
//! A device knows those that the cloud has named, and nobody else: they are its peers, the others are not spoken to,
//! whatever certificate they show. Nothing that a peer says is believed but bytes that have the hash they should
//! have, so that the worst it can do is to cost one chunk. Then it is left alone: for a minute at first, for an hour
//! where its bytes were wrong, twice as long with each time in a row.

use protocol::id::{ContentHash, DeviceId};
use protocol::limits::PEERS_MAX;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a peer did that it should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misdeed {
    /// Bytes that are not those of the chunk.
    WrongBytes,
    /// Another length, or another place, than what was asked for.
    WrongAnswer,
    /// Nothing for too long, or too little.
    Stalled,
    /// It does not let this device in.
    Refused,
    /// It is not there, or broke off.
    Unreachable,
}

impl Misdeed {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::WrongBytes, Self::WrongAnswer, Self::Stalled, Self::Refused, Self::Unreachable];

    /// As a word, for people and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongBytes => "wrong_bytes",
            Self::WrongAnswer => "wrong_answer",
            Self::Stalled => "stalled",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }

    /// How long it is left alone after the first time.
    fn first_rest(self) -> Duration {
        match self {
            // A disk that is damaged, or a lie: neither passes soon.
            Self::WrongBytes | Self::WrongAnswer => Duration::from_secs(3600),
            Self::Stalled | Self::Refused | Self::Unreachable => Duration::from_secs(60),
        }
    }
}

/// The longest that anybody is left alone: a certificate lives as long.
const REST_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a peer is believed not to have a blob, or to have too much to do.
const ABSENT_FOR: Duration = Duration::from_secs(20);
/// Blobs that one peer is remembered not to have.
const ABSENT_MAX: usize = 16;

/// What came of asking a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Chunks that are right.
    Served,
    /// It does not have the blob, or no room for another asker, or has given what it may today.
    Absent,
    /// It did what it should not.
    Failed(Misdeed),
}

/// What is known of one peer.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// Until when it is left alone, and why.
    rests: Option<(Instant, Misdeed)>,
    /// How often in a row it did what it should not.
    misdeeds: u32,
    /// Blobs that it does not have, until when that is believed.
    absent: BTreeMap<ContentHash, Instant>,
}

/// The peers of this device.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    named: BTreeMap<DeviceId, Standing>,
    /// Who is not named any more while it is left alone: to be named again does not forgive.
    gone: BTreeMap<DeviceId, Standing>,
}

impl Peers {
    /// From now on these are the peers, [`PEERS_MAX`] at most.
    pub fn handle_named(&mut self, named: impl IntoIterator<Item = DeviceId>, now: Instant) {
        let mut before = std::mem::take(&mut self.named);
        for device in named.into_iter().take(PEERS_MAX) {
            let known = before.remove(&device).or_else(|| self.gone.remove(&device));
            self.named.insert(device, known.unwrap_or_default());
        }
        self.gone.extend(before);
        self.gone.retain(|_, standing| standing.rests.is_some_and(|(until, _)| until > now));
        while self.gone.len() > PEERS_MAX {
            self.gone.pop_first();
        }
    }

    /// Whether this device is spoken to at all.
    pub fn is_named(&self, device: &DeviceId) -> bool {
        self.named.contains_key(device)
    }

    /// Somebody to ask for a blob; any of those who may have it, so that not all ask the same one.
    pub fn choose(&self, blob: ContentHash, entropy: u64, now: Instant) -> Option<DeviceId> {
        let may = |standing: &Standing| {
            standing.rests.is_none_or(|(until, _)| until <= now)
                && standing.absent.get(&blob).is_none_or(|until| *until <= now)
        };
        let able: Vec<&DeviceId> =
            self.named.iter().filter(|(_, standing)| may(standing)).map(|(id, _)| id).collect();
        let index = entropy.checked_rem(able.len() as u64)?;
        able.get(usize::try_from(index).ok()?).map(|id| (*id).clone())
    }

    /// What came of asking it.
    pub fn handle_outcome(
        &mut self,
        device: &DeviceId,
        blob: ContentHash,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(standing) = self.named.get_mut(device) else { return };
        match outcome {
            Outcome::Served => {
                standing.misdeeds = 0;
                standing.absent.remove(&blob);
            }
            Outcome::Absent => {
                standing.absent.retain(|_, until| *until > now);
                if standing.absent.len() >= ABSENT_MAX {
                    standing.absent.pop_first();
                }
                standing.absent.insert(blob, now + ABSENT_FOR);
            }
            Outcome::Failed(misdeed) => {
                let factor = 1_u32.checked_shl(standing.misdeeds).unwrap_or(u32::MAX);
                standing.misdeeds = standing.misdeeds.saturating_add(1).min(31);
                let rest = misdeed.first_rest().saturating_mul(factor).min(REST_MAX);
                standing.rests = Some((now + rest, misdeed));
            }
        }
    }

    /// Those who are left alone now, and why; for people.
    pub fn resting(&self, now: Instant) -> impl Iterator<Item = (&DeviceId, Misdeed)> {
        self.named.iter().filter_map(move |(device, standing)| {
            let (until, misdeed) = standing.rests?;
            (until > now).then_some((device, misdeed))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// What this device gives to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadPolicy {
    /// In any day that begins with the first byte; 0 for no limit.
    pub bytes_per_day: u64,
    /// Answers at a time.
    pub at_once: usize,
}

/// Why a peer is not served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// As many are served as may be.
    #[error("this device serves as many as it may")]
    Busy,
    /// The day's bytes are gone.
    #[error("this device has given what it may today")]
    Spent,
}

/// What was given, and is being given.
#[derive(Debug, Clone)]
pub struct Uploads {
    policy: UploadPolicy,
    day: Option<Instant>,
    spent: u64,
    under_way: usize,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Uploads {
    /// Nothing yet.
    pub fn new(policy: UploadPolicy) -> Self {
        Self { policy, day: None, spent: 0, under_way: 0 }
    }

    /// An answer of at most so many bytes begins: how many it may have. They are spent before they go, and those that
    /// did not go are told to [`Uploads::end`].
    ///
    /// # Errors
    /// Not now.
    pub fn begin(&mut self, wanted: u64, now: Instant) -> Result<u64, NotServed> {
        if self.under_way >= self.policy.at_once {
            return Err(NotServed::Busy);
        }
        if self.day.is_none_or(|day| now.saturating_duration_since(day) >= DAY) {
            self.day = Some(now);
            self.spent = 0;
        }
        let left = match self.policy.bytes_per_day {
            0 => u64::MAX,
            most => most.saturating_sub(self.spent),
        };
        let granted = wanted.min(left);
        if granted == 0 && wanted > 0 {
            return Err(NotServed::Spent);
        }
        self.spent += granted;
        self.under_way += 1;
        Ok(granted)
    }

    /// An answer ended, and so much of what it was granted was not sent.
    pub fn end(&mut self, unsent: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        self.spent = self.spent.saturating_sub(unsent);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a beginning of time for the tests
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device(number: usize) -> DeviceId {
        format!("d-{number}").parse().unwrap()
    }

    fn blob(number: u8) -> ContentHash {
        ContentHash::of(&[number])
    }

    fn peers(count: usize, now: Instant) -> Peers {
        let mut peers = Peers::default();
        peers.handle_named((0..count).map(device), now);
        peers
    }

    #[test]
    fn nobody_is_asked_who_was_not_named() {
        let now = Instant::now();
        let mut peers = peers(0, now);
        assert_eq!(peers.choose(blob(1), 7, now), None);
        peers.handle_outcome(&device(1), blob(1), Outcome::Served, now);
        assert!(peers.is_empty() && !peers.is_named(&device(1)));
        peers.handle_named((0..2 * PEERS_MAX).map(device), now);
        assert_eq!(peers.len(), PEERS_MAX);
    }

    #[test]
    fn who_does_not_have_one_blob_may_have_another() {
        let now = Instant::now();
        let mut peers = peers(1, now);
        peers.handle_outcome(&device(0), blob(1), Outcome::Absent, now);
        assert_eq!(peers.choose(blob(1), 0, now), None);
        assert_eq!(peers.choose(blob(2), 0, now), Some(device(0)));
        assert_eq!(peers.choose(blob(1), 0, now + ABSENT_FOR), Some(device(0)));
    }

    #[test]
    fn who_lies_is_left_alone_ever_longer_and_not_forgiven_by_a_new_list() {
        let mut now = Instant::now();
        let mut peers = peers(1, now);
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            peers.handle_outcome(&device(0), blob(1), Outcome::Failed(Misdeed::WrongBytes), now);
            peers.handle_named([], now);
            assert!(!peers.is_named(&device(0)));
            peers.handle_named([device(0)], now);
            let end = now + Duration::from_secs(hours * 3600);
            let before = end.checked_sub(Duration::from_secs(1)).unwrap();
            assert_eq!(peers.choose(blob(2), 0, before), None);
            assert_eq!(peers.resting(before).next(), Some((&device(0), Misdeed::WrongBytes)));
            assert_eq!(peers.choose(blob(2), 0, end), Some(device(0)));
            now = end;
        }
        peers.handle_outcome(&device(0), blob(1), Outcome::Served, now);
        peers.handle_outcome(&device(0), blob(1), Outcome::Failed(Misdeed::Stalled), now);
        assert_eq!(peers.choose(blob(1), 0, now + Duration::from_secs(60)), Some(device(0)));
    }

    proptest! {
        /// Whatever peers do, each costs one failure before it rests, and who is chosen is named and does not rest.
        #[test]
        fn a_choice_is_always_allowed(
            steps in prop::collection::vec((0..8usize, 0..3u8, 0..7u8, any::<u64>(), 0..5000u64), 1..200),
        ) {
            let mut now = Instant::now();
            let mut peers = peers(6, now);
            for (who, which, what, entropy, later) in steps {
                now += Duration::from_secs(later);
                let outcome = match what {
                    0 => Outcome::Served,
                    1 => Outcome::Absent,
                    other => Outcome::Failed(Misdeed::ALL[usize::from(other) - 2]),
                };
                peers.handle_outcome(&device(who), blob(which), outcome, now);
                if let Some(chosen) = peers.choose(blob(which), entropy, now) {
                    prop_assert!(peers.is_named(&chosen));
                    prop_assert!(peers.resting(now).all(|(resting, _)| *resting != chosen));
                }
                if matches!(outcome, Outcome::Failed(_)) {
                    for entropy in 0..8 {
                        prop_assert_ne!(peers.choose(blob(which), entropy, now), Some(device(who)));
                    }
                }
            }
        }

        /// No more is given in a day than may be, whoever asks.
        #[test]
        fn a_day_has_its_bytes(asks in prop::collection::vec((0..2000u64, 0..2000u64), 1..60)) {
            let now = Instant::now();
            let mut uploads = Uploads::new(UploadPolicy { bytes_per_day: 10_000, at_once: 2 });
            let mut sent = 0;
            for (wanted, unsent) in asks {
                let Ok(granted) = uploads.begin(wanted, now) else { continue };
                prop_assert!(granted <= wanted);
                let unsent = unsent.min(granted);
                sent += granted - unsent;
                uploads.end(unsent);
                prop_assert!(sent <= 10_000);
            }
            prop_assert!(uploads.begin(1, now + DAY).is_ok());
        }
    }

    #[test]
    fn so_many_at_once_and_no_more() {
        let now = Instant::now();
        let mut uploads = Uploads::new(UploadPolicy { bytes_per_day: 0, at_once: 2 });
        assert_eq!(uploads.begin(5, now), Ok(5));
        assert_eq!(uploads.begin(u64::MAX / 2, now), Ok(u64::MAX / 2));
        assert_eq!(uploads.begin(1, now), Err(NotServed::Busy));
        uploads.end(0);
        assert_eq!(uploads.begin(1, now), Ok(1));
    }
}
