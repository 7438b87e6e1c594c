//! What the devices of a fleet have seen, all of them together.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// Reasons that are told apart at most.
const REASONS_MAX: usize = 32;

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Devices whose hello the cloud has answered, and that are connected still.
    pub connected: u64,
    /// How often that was so, since the start.
    pub connections: u64,
    /// Attempts to connect that failed, and connections that ended.
    pub losses: u64,
    /// Why, and how often.
    pub reasons: BTreeMap<String, u64>,
    /// Desired states that were heard.
    pub desired: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connected: AtomicU64,
    connections: AtomicU64,
    losses: AtomicU64,
    desired: AtomicU64,
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// A device is connected while this lives.
pub(crate) struct Connected<'a>(&'a Counters);

impl Counters {
    pub(crate) fn connected(&self) -> Connected<'_> {
        self.connected.fetch_add(1, Relaxed);
        self.connections.fetch_add(1, Relaxed);
        Connected(self)
    }

    pub(crate) fn lost(&self, why: String) {
        self.losses.fetch_add(1, Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.len() < REASONS_MAX || reasons.contains_key(&why) {
            *reasons.entry(why).or_default() += 1;
        }
    }

    pub(crate) fn heard_desired(&self) {
        self.desired.fetch_add(1, Relaxed);
    }

    pub(crate) fn now(&self) -> Counts {
        Counts {
            connected: self.connected.load(Relaxed),
            connections: self.connections.load(Relaxed),
            losses: self.losses.load(Relaxed),
            reasons: self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            desired: self.desired.load(Relaxed),
        }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}
