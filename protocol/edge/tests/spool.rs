//! A device that spools and sends, over a network that loses every kind of message, with crashes on both sides: one thread,
//! one seed for each world. Whatever was closed on the device is in the store at the end, once, or was given up and counted.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // helpers, and the origin of the worlds' time lines

use outrigger_edge::spool::shelf::{Cause, Entry, Shelf, ShelfPolicy};
use outrigger_edge::spool::upload::{Action, UploadPolicy, Uploads};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use telemetry::Class;

const SEEDS: u64 = 1_000;
const STEPS: u64 = 400;
/// The network is well again for so many attempts at the end.
const CALM: u64 = 200;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

struct World {
    draw: Draw,
    seed: u64,
    now: Instant,
    now_s: i64,
    /// What lies on the device's disk.
    disk: BTreeMap<u64, Entry>,
    next_segment: u64,
    shelf: Shelf,
    uploads: Uploads,
    room: ShelfPolicy,
    store: Store,
    closed: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    calm: bool,
}

/// What is durable on the cloud, in the order in which it came.
#[derive(Default)]
struct Store(Vec<(Class, u64)>);

impl Store {
    fn keep(&mut self, entry: &Entry) {
        if !self.0.iter().any(|(_, segment)| *segment == entry.segment) {
            self.0.push((entry.class, entry.segment));
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            draw: Draw(seed),
            seed,
            now: Instant::now(),
            now_s: 1_700_000_000,
            disk: BTreeMap::new(),
            next_segment: 1,
            shelf: Shelf::default(),
            uploads: Uploads::new(UploadPolicy::default(), None),
            room: ShelfPolicy { bytes: 20_000, sample_bytes: 8_000, hours: 48 },
            store: Store::default(),
            closed: BTreeSet::new(),
            dropped: BTreeSet::new(),
            calm: false,
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS {
            match self.draw.below(10) {
                0..=2 => self.close(step / 20),
                3 => self.crash(),
                4 => self.clock_jumps(),
                _ => self.attempt(),
            }
            self.make_room(step / 20);
        }
        self.calm = true;
        for _ in 0..CALM {
            self.attempt();
        }
        self.check();
    }

    fn close(&mut self, hour: u64) {
        let class = Class::ALL[usize::try_from(self.draw.below(4)).unwrap()];
        let segment = self.next_segment;
        self.next_segment += 1;
        let (bytes, records) = (100 + self.draw.below(3_000), 1 + self.draw.below(50));
        let entry = Entry { segment, class, bytes, records, hour };
        self.disk.insert(segment, entry.clone());
        self.closed.insert(segment);
        self.shelf.put(entry);
    }

    /// The device restarts: it knows what lies on its disk, and nothing of what was under way.
    fn crash(&mut self) {
        self.shelf = Shelf::default();
        self.disk.values().for_each(|entry| self.shelf.put(entry.clone()));
        self.uploads = Uploads::new(UploadPolicy::default(), None);
    }

    fn clock_jumps(&mut self) {
        let years = i64::try_from(self.draw.below(21)).unwrap() - 10;
        self.now_s += years * 365 * 24 * 3600;
    }

    fn make_room(&mut self, hour: u64) {
        while let Some((entry, cause)) = self.shelf.poll_victim(&self.room, hour) {
            assert!(matches!(cause, Cause::Room | Cause::Age));
            self.gone(&entry);
            self.dropped.insert(entry.segment);
        }
        assert!(self.shelf.bytes() <= self.room.bytes, "seed {}", self.seed);
    }

    fn gone(&mut self, entry: &Entry) {
        self.shelf.take(entry.class, entry.segment);
        self.disk.remove(&entry.segment);
    }

    /// One attempt to send: it may break off at any segment, and the word that they are durable may be lost.
    fn attempt(&mut self) {
        self.now += Duration::from_secs(1 + self.draw.below(700));
        self.now_s += 60;
        let batch = match self.uploads.poll(&self.shelf, self.now, self.now_s) {
            Action::Send(batch) => batch,
            Action::Wait { .. } => return,
        };
        assert!(!batch.is_empty(), "seed {}: nothing to send is to wait", self.seed);
        if !self.calm && self.draw.one_in(8) {
            return self.uploads.handle_retry_after(Duration::from_secs(30), self.now);
        }
        let arrive = if self.calm { batch.len() } else { self.lossy(batch.len()) };
        batch[..arrive].iter().for_each(|entry| self.store.keep(entry));
        if arrive < batch.len() || (!self.calm && self.draw.one_in(4)) {
            let entropy = self.draw.next();
            return self.uploads.handle_failed(self.now, entropy);
        }
        batch.iter().for_each(|entry| self.gone(entry));
        self.uploads.handle_taken();
    }

    /// How many of a batch's segments arrive.
    fn lossy(&mut self, all: usize) -> usize {
        match self.draw.below(3) {
            0 => 0,
            1 => usize::try_from(self.draw.below(all as u64 + 1)).unwrap(),
            _ => all,
        }
    }

    fn check(&self) {
        let (seed, store) = (self.seed, &self.store.0);
        let stored: BTreeSet<u64> = store.iter().map(|(_, segment)| *segment).collect();
        assert_eq!(stored.len(), store.len(), "seed {seed}: a segment twice");
        let known = |segment: &&u64| !stored.contains(segment) && !self.dropped.contains(segment);
        let lost: Vec<_> = self.closed.iter().filter(known).collect();
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
        assert!(self.shelf.is_empty() && self.disk.is_empty(), "seed {seed}: something waits");
        for class in Class::ALL {
            let own = store.iter().filter(|(c, _)| *c == class).map(|(_, segment)| *segment);
            assert!(own.is_sorted(), "seed {seed}: {class:?} out of order");
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_in_any_world() {
    let (mut sent, mut dropped) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run();
        sent += world.store.0.len();
        dropped += world.dropped.len();
    }
    assert!(sent > 50_000 && dropped > 1_000, "{sent} sent, {dropped} given up");
}
