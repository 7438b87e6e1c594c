//! One request on its way, as the device that drives it knows it.

use edge::offload::{Grant, Request};
use protocol::infer::PlacementHint;
use std::time::{Duration, Instant};

/// What an application asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) arrived: Instant,
    pub(super) allowed: Duration,
    pub(super) bytes: u64,
    pub(super) priority: u8,
    pub(super) hint: PlacementHint,
    /// What the edge model will say of it, and whether the cloud would say the same.
    pub(super) score: f32,
    pub(super) wrong: bool,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) wish: Wish,
    pub(super) cutoff: Instant,
    pub(super) machine: Request,
    pub(super) threshold: Option<f32>,
    /// The edge model was asked and has not ended.
    pub(super) edge: bool,
    /// The cloud was asked and has not ended; when, and with what grant.
    pub(super) cloud: Option<(Instant, Grant)>,
    pub(super) doubt: f64,
    /// When a busy cloud wants to be asked again.
    pub(super) retry_after: Option<Duration>,
    /// Its answer is to be checked should it be accepted; by which rule.
    pub(super) drawn: Option<u8>,
}

/// An accepted answer that is compared with the cloud's.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckFlight {
    pub(super) level: u8,
    pub(super) wrong: bool,
}
