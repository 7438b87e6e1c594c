//! What one device knows of one node.

use std::time::{Duration, Instant};

use super::BalancePolicy;
use super::latency::Latency;
use crate::backoff::Backoff;

/// So many answers after it was ejected, a node counts as well again.
const CONVALESCENCE: u32 = 10;
/// What a node said of its load fades over this: it is true of the moment.
const WORD_FADES: Duration = Duration::from_secs(1);
/// The longest that a node can ask to be left alone for.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Absent,
    Connecting,
    Open,
    Closing,
}

#[derive(Debug)]
pub(super) struct Node {
    /// Its place in this device's order.
    pub(super) rank: u64,
    /// Whether the control node names it.
    pub(super) listed: bool,
    pub(super) link: Link,
    pub(super) draining: bool,
    /// Requests of this device that are under way there.
    pub(super) outstanding: u32,
    pub(super) ejected_until: Option<Instant>,
    /// It was ejected, and has not answered since.
    on_probation: bool,
    failures: u32,
    answers_since: u32,
    backoff: Backoff,
    latency: Latency,
    said: Option<(Duration, Instant)>,
    full_until: Option<Instant>,
}

impl Node {
    pub(super) fn new(rank: u64, policy: &BalancePolicy) -> Self {
        Self {
            rank,
            listed: true,
            link: Link::Absent,
            draining: false,
            outstanding: 0,
            ejected_until: None,
            on_probation: false,
            failures: 0,
            answers_since: 0,
            backoff: Backoff::new(policy.eject_base, policy.eject_max),
            latency: Latency::default(),
            said: None,
            full_until: None,
        }
    }

    pub(super) fn connected(&mut self) {
        if self.link == Link::Open {
            return;
        }
        self.link = Link::Open;
        self.draining = false;
        self.ejected_until = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.link == Link::Open && self.listed && !self.draining
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// Whether a connection to it is of use.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        self.listed && !self.draining && !self.is_ejected(now)
    }

    /// Whether it may be asked while others can be.
    pub(super) fn is_eligible(&self, now: Instant) -> bool {
        let full = self.full_until.is_some_and(|until| now < until);
        let on_trial = self.on_probation && self.outstanding > 0;
        !(self.is_ejected(now) || full || on_trial)
    }

    pub(super) fn cost_us(&self, now: Instant) -> f64 {
        let said_us = self.said.map_or(0.0, |(wait, at)| {
            let age = now.saturating_duration_since(at).as_secs_f64();
            wait.as_secs_f64() * 1e6 * (-age / WORD_FADES.as_secs_f64()).exp()
        });
        (self.latency.expected_us(now) + said_us) * f64::from(self.outstanding + 1)
    }

    /// What its answers took over a while; nothing is known of one that is ejected.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.latency.usual()
    }

    pub(super) fn answered(&mut self, took: Duration, now: Instant) {
        self.latency.observe(took, now);
        self.worked();
        self.answers_since = self.answers_since.saturating_add(1);
        if self.answers_since >= CONVALESCENCE {
            self.backoff.reset();
        }
    }

    pub(super) fn worked(&mut self) {
        self.failures = 0;
        self.on_probation = false;
        self.full_until = None;
    }

    pub(super) fn said(&mut self, wait: Duration, now: Instant) {
        self.said = Some((wait, now));
    }

    pub(super) fn full(&mut self, pause: Duration, now: Instant) {
        self.failures = 0; // it works, and says so
        self.full_until = Some(now + pause.min(PAUSE_MAX));
    }

    /// How often it has failed in a row.
    pub(super) fn failed(&mut self) -> u32 {
        self.failures += 1;
        if self.on_probation { u32::MAX } else { self.failures }
    }

    pub(super) fn eject(&mut self, entropy: u64, now: Instant) {
        if self.is_ejected(now) {
            return; // the others that were under way there say nothing new
        }
        self.ejected_until = Some(now + self.backoff.next_delay(entropy));
        self.on_probation = true;
        self.failures = 0;
        self.answers_since = 0;
        self.latency = Latency::default();
        self.said = None;
    }

    pub(super) fn describe(&self, now: Instant) -> &'static str {
        match self.link {
            _ if self.is_ejected(now) => "ejected",
            Link::Absent => "not connected",
            Link::Connecting => "connecting",
            Link::Closing => "closing",
            Link::Open if self.draining => "draining",
            Link::Open => "connected",
        }
    }
}
