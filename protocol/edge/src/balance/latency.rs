//! Two views of how long a node takes: a quick one that chooses, and a slow one that condemns.
//!
//! The quick one is a peak-EWMA: a slower answer counts at once, faster ones take it down over
//! [`DECAY`], and so does time without any answer, so that a node that was slow once is asked again.
//! Source: Finagle's and linkerd2-proxy's balancers, which take ten seconds; here it is two, because a
//! device asks two nodes, not hundreds, and one that loaded a model would be left out for a minute. The slow one is the plain mean of the last
//! answers, each of which weighs [`WEIGHT`]: one hiccup does not eject a node.

use std::time::{Duration, Instant};

const DECAY: Duration = Duration::from_secs(2);
const WEIGHT: f64 = 0.1;
/// Fewer answers than this say nothing.
const SAMPLES_MIN: u32 = 20;
/// What is assumed of a node that has not answered yet: little, so that it is asked.
const UNKNOWN_US: f64 = 1000.0;

/// How long a node takes, as this device sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Latency {
    peak: Option<(f64, Instant)>,
    mean_us: f64,
    samples: u32,
}

impl Latency {
    pub(super) fn observe(&mut self, took: Duration, now: Instant) {
        let took_us = took.as_secs_f64() * 1e6;
        let peak_us = match self.peak {
            Some((known_us, at)) if took_us < known_us => {
                took_us + (known_us - took_us) * share_left(at, now)
            }
            _ => took_us,
        };
        self.peak = Some((peak_us, now));
        let weight = if self.samples == 0 { 1.0 } else { WEIGHT };
        self.mean_us += (took_us - self.mean_us) * weight;
        self.samples = self.samples.saturating_add(1);
    }

    /// What the next answer may take, in microseconds.
    pub(super) fn expected_us(&self, now: Instant) -> f64 {
        self.peak.map_or(UNKNOWN_US, |(peak_us, at)| peak_us * share_left(at, now))
    }

    /// What answers took over a while, once there were enough of them.
    pub(super) fn usual(&self) -> Option<Duration> {
        (self.samples >= SAMPLES_MIN).then(|| Duration::from_secs_f64(self.mean_us / 1e6))
    }
}

/// How much of a value is left after the time between.
pub(super) fn share_left(at: Instant, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(at).as_secs_f64();
    (-passed / DECAY.as_secs_f64()).exp()
}
