//! Which sequences (streams with state) a device keeps: how many, how large, how long, and in which
//! order their requests are answered. What the state is, this does not know: a value of any type.
//!
//! A sequence is forgotten when it ends, when nothing was asked of it for a while, or when it is the
//! least recently used one and another needs its place. Never while a request of it is under way:
//! then the other one is refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencePolicy {
    /// Sequences at a time.
    pub count_max: usize,
    /// Bytes of all their states together.
    pub size_max_bytes: usize,
    /// Requests of one sequence under way, with those that wait for their turn.
    pub waiting_max: usize,
    /// How long one is kept without a request.
    pub idle: Duration,
}

/// Why a request cannot be a piece of its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceRefusal {
    /// It was never begun, or is forgotten.
    #[error("the sequence is unknown or expired")]
    Unknown,
    /// Too many of its requests wait already.
    #[error("{waiting} requests of this sequence are waiting already")]
    Waiting {
        /// How many.
        waiting: usize,
    },
    /// There is no place, and every other sequence has a request under way.
    #[error("{count} sequences are busy, and no more are kept")]
    Full {
        /// How many.
        count: usize,
    },
}

/// A request's place in its sequence; given back with [`Sequences::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which of the sequences that had this key.
    generation: u64,
}

/// How a sequence stands after one of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, with a state of so many bytes.
    Goes {
        /// Of its state.
        size_bytes: usize,
    },
    /// It goes on as it was: the request gave no answer.
    AsItWas,
    /// It is over.
    Ended,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    generation: u64,
    size_bytes: usize,
    under_way: usize,
    used: Instant,
}

/// How many sequences were forgotten before their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Because nothing was asked of them.
    pub idle: u64,
    /// Because another one needed their place.
    pub displaced: u64,
}

/// The sequences of a device.
#[derive(Debug)]
pub struct Sequences<K, V> {
    policy: SequencePolicy,
    kept: BTreeMap<K, Kept<V>>,
    generations: u64,
    size_bytes: usize,
    forgotten: Forgotten,
}

impl<K: Ord + Clone, V: Clone> Sequences<K, V> {
    /// None yet.
    pub fn new(policy: SequencePolicy) -> Self {
        let forgotten = Forgotten::default();
        Self { policy, kept: BTreeMap::new(), generations: 0, size_bytes: 0, forgotten }
    }

    /// Begins a sequence, in the place of one that had this key.
    ///
    /// # Errors
    /// [`SequenceRefusal::Full`].
    pub fn begin(&mut self, key: &K, value: V, now: Instant) -> Result<Turn, SequenceRefusal> {
        self.expire(now);
        self.remove(key); // who still asks of it finishes on its own copy
        if self.kept.len() >= self.policy.count_max && !self.displace() {
            return Err(SequenceRefusal::Full { count: self.kept.len() });
        }
        self.generations += 1;
        let generation = self.generations;
        let kept = Kept { value, generation, size_bytes: 0, under_way: 1, used: now };
        self.kept.insert(key.clone(), kept);
        Ok(Turn { generation })
    }

    /// Goes on with a sequence.
    ///
    /// # Errors
    /// [`SequenceRefusal::Unknown`] or [`SequenceRefusal::Waiting`].
    pub fn go_on(&mut self, key: &K, now: Instant) -> Result<(V, Turn), SequenceRefusal> {
        self.expire(now);
        let kept = self.kept.get_mut(key).ok_or(SequenceRefusal::Unknown)?;
        if kept.under_way >= self.policy.waiting_max {
            return Err(SequenceRefusal::Waiting { waiting: kept.under_way });
        }
        kept.under_way += 1;
        kept.used = now;
        Ok((kept.value.clone(), Turn { generation: kept.generation }))
    }

    /// A request of a sequence is over. Must follow every [`Sequences::begin`] and
    /// [`Sequences::go_on`] that succeeded.
    pub fn leave(&mut self, key: &K, turn: Turn, outcome: Outcome, now: Instant) {
        let own = self.kept.get_mut(key).filter(|kept| kept.generation == turn.generation);
        let Some(kept) = own else { return }; // begun anew meanwhile
        kept.under_way -= 1;
        kept.used = now;
        match outcome {
            Outcome::Ended => self.remove(key),
            Outcome::AsItWas => {}
            Outcome::Goes { size_bytes } => {
                self.size_bytes = self.size_bytes - kept.size_bytes + size_bytes;
                kept.size_bytes = size_bytes;
                while self.size_bytes > self.policy.size_max_bytes && self.displace() {}
            }
        }
    }

    /// Forgets one, where it is still that one.
    pub fn forget(&mut self, key: &K, turn: Turn) {
        if self.kept.get(key).is_some_and(|kept| kept.generation == turn.generation) {
            self.remove(key);
        }
    }

    /// Forgets those of which nothing was asked for too long.
    pub fn expire(&mut self, now: Instant) {
        let idle = self.policy.idle;
        let is_idle = |kept: &Kept<V>| kept.under_way == 0 && now >= kept.used + idle;
        let gone: Vec<K> = self
            .kept
            .iter()
            .filter(|(_, kept)| is_idle(kept))
            .map(|(key, _)| key.clone())
            .collect();
        self.forgotten.idle += gone.len() as u64;
        gone.iter().for_each(|key| self.remove(key));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of all states.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// How many were forgotten since this was asked last.
    pub fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    /// Makes place by forgetting the least recently used one at rest.
    fn displace(&mut self) -> bool {
        let resting = self.kept.iter().filter(|(_, kept)| kept.under_way == 0);
        let Some(key) = resting.min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone())
        else {
            return false;
        };
        self.forgotten.displaced += 1;
        self.remove(&key);
        true
    }

    fn remove(&mut self, key: &K) {
        if let Some(kept) = self.kept.remove(key) {
            self.size_bytes -= kept.size_bytes;
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: SequencePolicy = SequencePolicy {
        count_max: 2,
        size_max_bytes: 100,
        waiting_max: 2,
        idle: Duration::from_secs(60),
    };

    fn sequences() -> (Sequences<u32, char>, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Sequences::new(POLICY), move |s| start + Duration::from_secs(s))
    }

    const GOES: Outcome = Outcome::Goes { size_bytes: 10 };

    #[test]
    fn a_sequence_begins_goes_on_and_ends() {
        let (mut all, at) = sequences();
        assert_eq!(all.go_on(&1, at(0)), Err(SequenceRefusal::Unknown));
        let turn = all.begin(&1, 'a', at(0)).unwrap();
        all.leave(&1, turn, GOES, at(1));
        let (value, turn) = all.go_on(&1, at(2)).unwrap();
        assert_eq!((value, all.size_bytes()), ('a', 10));
        all.leave(&1, turn, Outcome::AsItWas, at(2));
        assert_eq!(all.size_bytes(), 10);
        let (_, turn) = all.go_on(&1, at(3)).unwrap();
        all.leave(&1, turn, Outcome::Ended, at(3));
        assert_eq!(all.go_on(&1, at(3)), Err(SequenceRefusal::Unknown));
        assert!(all.is_empty() && all.size_bytes() == 0);
    }

    #[test]
    fn what_nobody_asks_of_is_forgotten() {
        let (mut all, at) = sequences();
        let turn = all.begin(&1, 'a', at(0)).unwrap();
        all.expire(at(600));
        assert_eq!(all.len(), 1, "a request is under way");
        all.leave(&1, turn, GOES, at(600));
        let (_, turn) = all.go_on(&1, at(659)).unwrap();
        all.leave(&1, turn, GOES, at(659));
        assert_eq!(all.go_on(&1, at(719)), Err(SequenceRefusal::Unknown));
        assert_eq!(all.take_forgotten(), Forgotten { idle: 1, displaced: 0 });
    }

    #[test]
    fn the_least_recently_used_makes_place_but_never_a_busy_one() {
        let (mut all, at) = sequences();
        let one = all.begin(&1, 'a', at(0)).unwrap();
        let two = all.begin(&2, 'b', at(1)).unwrap();
        assert_eq!(all.begin(&3, 'c', at(2)), Err(SequenceRefusal::Full { count: 2 }));
        all.leave(&2, two, GOES, at(3));
        all.leave(&1, one, GOES, at(4));
        let three = all.begin(&3, 'c', at(5)).unwrap();
        assert_eq!(all.go_on(&2, at(5)).unwrap_err(), SequenceRefusal::Unknown);
        all.leave(&3, three, Outcome::Goes { size_bytes: 95 }, at(6));
        assert_eq!((all.len(), all.size_bytes()), (1, 95), "the other made place for the bytes");
        assert_eq!(all.take_forgotten(), Forgotten { idle: 0, displaced: 2 });
    }

    #[test]
    fn waiting_requests_are_limited_and_a_new_beginning_ends_the_old() {
        let (mut all, at) = sequences();
        let old = all.begin(&1, 'a', at(0)).unwrap();
        all.go_on(&1, at(0)).unwrap();
        assert_eq!(all.go_on(&1, at(0)), Err(SequenceRefusal::Waiting { waiting: 2 }));
        let new = all.begin(&1, 'b', at(1)).unwrap();
        all.leave(&1, old, Outcome::Ended, at(1));
        all.forget(&1, old);
        assert_eq!(all.go_on(&1, at(1)).unwrap().0, 'b', "the end was of the old one");
        all.leave(&1, new, GOES, at(1));
        assert_eq!(all.len(), 1);
    }

    proptest! {
        /// Whatever comes, the limits hold and the bytes add up.
        #[test]
        fn limits_hold(steps in prop::collection::vec((0u32..5, 0u8..4, 0usize..60, 0u64..40), 0..80)) {
            let (mut all, at) = sequences();
            let (mut now, mut open) = (0, Vec::new());
            for (key, step, size_bytes, wait) in steps {
                now += wait;
                match step {
                    0 => open.extend(all.begin(&key, 'x', at(now)).map(|turn| (key, turn))),
                    1 => open.extend(all.go_on(&key, at(now)).map(|(_, turn)| (key, turn))),
                    _ if open.is_empty() => all.expire(at(now)),
                    2 => {
                        let (key, turn) = open.remove(size_bytes % open.len());
                        all.leave(&key, turn, Outcome::Goes { size_bytes }, at(now));
                    }
                    _ => {
                        let (key, turn) = open.remove(0);
                        all.leave(&key, turn, Outcome::Ended, at(now));
                    }
                }
                prop_assert!(all.len() <= 2);
                let sum: usize = all.kept.values().map(|kept| kept.size_bytes).sum();
                prop_assert_eq!(all.size_bytes(), sum);
                prop_assert!(all.kept.values().all(|kept| kept.under_way <= 2));
            }
            for (key, turn) in open {
                all.leave(&key, turn, Outcome::AsItWas, at(now));
            }
            all.expire(at(now + 60));
            prop_assert!(all.is_empty());
        }
    }
}
