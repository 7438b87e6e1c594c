//! Which deltas are here, which are on their way, and which are not worth it. The files are the caller's.

use protocol::id::ContentHash;
use std::collections::{BTreeMap, BTreeSet};

use super::Held;

/// Pairs of files that are known not to be worth a delta; beyond, all of them are tried once more.
const USELESS_MAX: usize = 4096;

/// A delta: what it makes, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) target: ContentHash,
    /// None for a file that is only packed.
    pub(crate) base: Option<ContentHash>,
}

/// One that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) hash: ContentHash,
    pub(crate) size_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Cache {
    most_bytes: u64,
    made: BTreeMap<Key, (Made, u64)>,
    keys: BTreeMap<ContentHash, Key>,
    under_way: BTreeSet<Key>,
    useless: BTreeSet<Key>,
    uses: u64,
}

impl Cache {
    pub(super) fn new(most_bytes: u64) -> Self {
        let (made, keys) = (BTreeMap::new(), BTreeMap::new());
        let (under_way, useless) = (BTreeSet::new(), BTreeSet::new());
        Self { most_bytes, made, keys, under_way, useless, uses: 0 }
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Made> {
        let now = self.next_use();
        let (made, used) = self.made.get_mut(key)?;
        *used = now;
        Some(*made)
    }

    pub(super) fn find(&mut self, hash: ContentHash) -> Option<(Key, Made)> {
        let key = *self.keys.get(&hash)?;
        Some((key, self.get(&key)?))
    }

    /// Whether it should be made now; then it is under way.
    pub(super) fn may_begin(&mut self, key: Key) -> bool {
        self.most_bytes > 0 && !self.useless.contains(&key) && self.under_way.insert(key)
    }

    pub(super) fn is_under_way(&self, key: &Key) -> bool {
        self.under_way.contains(key)
    }

    /// It may be tried again.
    pub(super) fn end(&mut self, key: Key) {
        self.under_way.remove(&key);
    }

    /// It is not tried again.
    pub(super) fn give_up(&mut self, key: Key) {
        self.end(key);
        if self.useless.len() >= USELESS_MAX {
            self.useless.clear();
        }
        self.useless.insert(key);
    }

    /// It is here. Those that make room for it, least recently used first.
    pub(super) fn insert(&mut self, key: Key, made: Made) -> Vec<(Key, ContentHash)> {
        self.end(key);
        let now = self.next_use();
        let mut gone = Vec::new();
        if let Some((before, _)) = self.made.insert(key, (made, now)) {
            self.keys.remove(&before.hash);
            gone.extend((before.hash != made.hash).then_some((key, before.hash)));
        }
        self.keys.insert(made.hash, key);
        while self.held().bytes > self.most_bytes {
            let oldest = self.made.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            let Some(oldest) = oldest else { break };
            gone.extend(self.take(oldest));
        }
        gone
    }

    fn take(&mut self, key: Key) -> Option<(Key, ContentHash)> {
        let (made, _) = self.made.remove(&key)?;
        self.keys.remove(&made.hash);
        Some((key, made.hash))
    }

    /// Those that go because they are not wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&Key) -> bool) -> Vec<(Key, ContentHash)> {
        let unwanted: Vec<Key> = self.made.keys().filter(|key| !is_wanted(key)).copied().collect();
        unwanted.into_iter().filter_map(|key| self.take(key)).collect()
    }

    pub(super) fn held(&self) -> Held {
        let bytes = self.made.values().map(|(made, _)| made.size_bytes).sum();
        Held { count: self.made.len() as u64, bytes }
    }
}

/// How a delta's file is called: what it makes, from what, and its own hash.
pub(super) fn name(key: Key, hash: ContentHash) -> String {
    let base = key.base.map_or_else(|| "packed".to_owned(), |base| base.to_string());
    format!("{}.{base}.{hash}", key.target)
}

pub(super) fn parse_name(name: &str) -> Option<(Key, ContentHash)> {
    let mut parts = name.split('.');
    let target = parts.next()?.parse().ok()?;
    let base = match parts.next()? {
        "packed" => None,
        base => Some(base.parse().ok()?),
    };
    let hash = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((Key { target, base }, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u8) -> ContentHash {
        ContentHash::of(&[number])
    }

    fn key(number: u8) -> Key {
        Key { target: hash(number), base: Some(hash(100)) }
    }

    fn made(number: u8) -> Made {
        Made { hash: hash(200 + number), size_bytes: 40 }
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut cache = Cache::new(100);
        assert_eq!(cache.insert(key(1), made(1)), []);
        assert_eq!(cache.insert(key(2), made(2)), []);
        assert!(cache.find(hash(201)).is_some(), "the first was used");
        assert_eq!(cache.insert(key(3), made(3)), [(key(2), hash(202))]);
        assert_eq!((cache.held().bytes, cache.find(hash(202))), (80, None));
        assert_eq!(cache.retain(|key| key.target != hash(1)), [(key(1), hash(201))]);
    }

    #[test]
    fn it_is_made_once_and_not_again_where_it_is_of_no_use() {
        let mut cache = Cache::new(100);
        assert!(cache.may_begin(key(1)) && !cache.may_begin(key(1)) && cache.is_under_way(&key(1)));
        cache.end(key(1));
        assert!(cache.may_begin(key(1)));
        cache.give_up(key(1));
        assert!(!cache.may_begin(key(1)) && !cache.is_under_way(&key(1)));
        assert!(!Cache::new(0).may_begin(key(1)), "switched off");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for key in [key(1), Key { base: None, ..key(2) }] {
            assert_eq!(parse_name(&name(key, hash(9))), Some((key, hash(9))));
        }
        assert_eq!(parse_name("listening"), None);
    }
}
