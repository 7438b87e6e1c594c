//! What is between two ends: in each direction a reader that decides what becomes of a packet, a queue
//! ordered by time, and a writer.

use crate::network::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PACKET_MAX_BYTES: usize = 65_536;

/// How a link treats packets, in both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From one end to the other.
    pub one_way: Duration,
    /// The mean of what is added at random; packets overtake each other by it.
    pub jitter: Duration,
    /// The probability that a packet is lost.
    pub loss: f64,
    /// The probability that it arrives twice.
    pub duplicate: f64,
    /// The bottleneck; 0 for none.
    pub bits_per_s: f64,
    /// How long a packet waits there at most, before it is dropped.
    pub queue: Duration,
    /// Nothing passes.
    pub is_down: bool,
}

/// A packet, and when it arrives.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due(Instant, u64, Vec<u8>);

struct Way {
    link: Mutex<Link>,
    queue: Mutex<BinaryHeap<Reverse<Due>>>,
    changed: Condvar,
    passed: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    ended: AtomicBool,
}

/// Two ways.
pub(super) struct Pipe([Arc<Way>; 2]);

impl Drop for Pipe {
    fn drop(&mut self) {
        for way in &self.0 {
            way.ended.store(true, Relaxed);
            way.changed.notify_all();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    pub(super) fn start(a: File, b: File, link: Link, seed: u64) -> std::io::Result<Self> {
        let there = Way::start(a.try_clone()?, b.try_clone()?, link, seed);
        let back = Way::start(b, a, link, seed.wrapping_add(1));
        Ok(Self([there, back]))
    }

    pub(super) fn set(&self, link: Link) {
        for way in &self.0 {
            *locked(&way.link) = link;
        }
    }

    pub(super) fn counts(&self) -> [u64; 3] {
        let sum =
            |count: fn(&Way) -> &AtomicU64| self.0.iter().map(|way| count(way).load(Relaxed)).sum();
        [sum(|way| &way.passed), sum(|way| &way.lost), sum(|way| &way.dropped)]
    }
}

impl Way {
    fn start(from: File, to: File, link: Link, seed: u64) -> Arc<Self> {
        let way = Arc::new(Self {
            link: Mutex::new(link),
            queue: Mutex::default(),
            changed: Condvar::new(),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let (reading, writing) = (way.clone(), way.clone());
        // The reader ends with the namespace, whose removal ends its device.
        std::thread::spawn(move || reading.read(from, Random::new(seed)));
        std::thread::spawn(move || writing.write(to));
        way
    }

    fn read(&self, mut from: File, mut random: Random) {
        let mut buffer = vec![0; PACKET_MAX_BYTES];
        let (mut free_at, mut number) = (Instant::now(), 0);
        while let Ok(length) = from.read(&mut buffer) {
            let link = *locked(&self.link);
            let copies = 1 + u8::from(random.chance(link.duplicate));
            for _ in 0..copies {
                let now = Instant::now();
                if link.is_down || random.chance(link.loss) {
                    self.lost.fetch_add(1, Relaxed);
                    continue;
                }
                free_at = free_at.max(now);
                if free_at - now > link.queue {
                    self.dropped.fetch_add(1, Relaxed);
                    continue;
                }
                if link.bits_per_s > 0.0 {
                    free_at += Duration::from_secs_f64(length as f64 * 8.0 / link.bits_per_s);
                }
                let jitter = link.jitter.mul_f64(random.exponential(1.0).min(5.0));
                number += 1;
                let due = Due(free_at + link.one_way + jitter, number, buffer[..length].to_vec());
                locked(&self.queue).push(Reverse(due));
                self.changed.notify_one();
            }
        }
    }

    fn write(&self, mut to: File) {
        let mut queue = locked(&self.queue);
        while !self.ended.load(Relaxed) {
            let now = Instant::now();
            match queue.peek() {
                Some(Reverse(Due(at, ..))) if *at <= now => {
                    let packet = queue.pop();
                    drop(queue);
                    if let Some(Reverse(Due(.., packet))) = packet {
                        self.passed.fetch_add(1, Relaxed);
                        let _ = to.write(&packet); // what the end does not take is lost
                    }
                    queue = locked(&self.queue);
                }
                Some(Reverse(Due(at, ..))) => {
                    let wait = *at - now;
                    queue = self
                        .changed
                        .wait_timeout(queue, wait)
                        .map_or_else(|e| e.into_inner().0, |(q, _)| q);
                }
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
