//! A request for an answer, the answer, and the truthful verdict that travels with it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use crate::id::{ModelName, Version};
use crate::tensor::Tensor;

/// What an application asks.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// Which model.
    pub model: ModelName,
    /// Which version; the active one when absent.
    pub version: Option<Version>,
    /// The application's own id for the request, given back with the answer.
    pub id: String,
    /// The inputs, as the application has them.
    pub inputs: Vec<Tensor>,
    /// The outputs it wants; all when empty.
    pub outputs: Vec<String>,
    /// How long it will wait, in milliseconds.
    pub deadline_ms: Option<u32>,
    /// 0 (default) to 255; higher is served first.
    pub priority: u8,
    /// Where it wants the answer computed.
    pub hint: PlacementHint,
    /// The stream that it is a piece of; a whole when absent.
    pub sequence: Option<Sequence>,
}

/// A piece of a stream: requests of one model that follow each other, with state kept between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The application whose sequence it is, where applications are told apart.
    pub owner: Option<Arc<str>>,
    /// The application's own id for it.
    pub id: SequenceId,
    /// It begins with this request, whatever was there under this id.
    pub start: bool,
    /// It ends with this request.
    pub end: bool,
}

/// A sequence's id, a number above 0 or a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SequenceId {
    /// A number.
    Number(u64),
    /// A name of at most [`crate::limits::NAME_MAX_BYTES`].
    Name(String),
}

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// Where the application wants its answer computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlacementHint {
    /// The agent decides.
    #[default]
    Auto,
    /// Never leave the device.
    Edge,
    /// Ask the cloud at once.
    Cloud,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The device's own model, accepted.
    Edge,
    /// The cloud's larger model.
    Cloud,
    /// The device's own model, although it would have been deferred: the cloud did not answer.
    EdgeDegraded,
}

impl Placement {
    /// `edge`, `cloud` or `edge-degraded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Placement::Edge => "edge",
            Placement::Cloud => "cloud",
            Placement::EdgeDegraded => "edge-degraded",
        }
    }
}

/// Why the answer came from there: one machine-readable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The edge answer was confident enough.
    Confident,
    /// The edge answer was not confident enough, the cloud answered.
    Deferred,
    /// The application asked for this place.
    Requested,
    /// The model has no rule for deferral, or no cloud variant, so the edge answer stands.
    EdgeOnlyModel,
    /// It is a piece of a sequence, whose state is on the device.
    Sequence,
    /// The edge model failed, the cloud answered instead.
    EdgeFailed,
    /// Deferral was due, but there is no connection to the cloud.
    CloudUnreachable,
    /// Deferral was due, but the cloud failed or refused.
    CloudFailed,
    /// Deferral was due, but the cloud has too much to do, and said when to ask again.
    CloudBusy,
    /// Deferral was due, but the deadline came first.
    CloudLate,
    /// Deferral was due, but recent deferrals failed and the next trial is not due yet.
    BreakerOpen,
    /// Deferral was due, but the day's budget is paced, and other requests are worth more.
    Budget,
    /// Both were asked at once, and the cloud's answer was the first acceptable one.
    Hedged,
    /// The edge model first: nothing speaks against the cheapest.
    Cheapest,
    /// The edge model first, to learn how it does now.
    Exploring,
    /// The cloud first: nearly all edge answers would be deferred anyway.
    UsuallyDeferred,
    /// The cloud first: it is faster now.
    EdgeSlower,
    /// The cloud first: the edge model would not be done in time.
    EdgeTooSlow,
    /// Both at once: one after the other would not fit into the deadline.
    DeadlineTight,
}

impl Reason {
    /// The code as text, for example `cloud_late`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Confident => "confident",
            Reason::Deferred => "deferred",
            Reason::Requested => "requested",
            Reason::EdgeOnlyModel => "edge_only_model",
            Reason::Sequence => "sequence",
            Reason::EdgeFailed => "edge_failed",
            Reason::CloudUnreachable => "cloud_unreachable",
            Reason::CloudFailed => "cloud_failed",
            Reason::CloudBusy => "cloud_busy",
            Reason::CloudLate => "cloud_late",
            Reason::BreakerOpen => "breaker_open",
            Reason::Budget => "budget",
            Reason::Hedged => "hedged",
            Reason::Cheapest => "cheapest",
            Reason::Exploring => "exploring",
            Reason::UsuallyDeferred => "usually_deferred",
            Reason::EdgeSlower => "edge_slower",
            Reason::EdgeTooSlow => "edge_too_slow",
            Reason::DeadlineTight => "deadline_tight",
        }
    }

    /// Every reason, in the order in which they are documented.
    pub const ALL: [Reason; 19] = [
        Reason::Confident,
        Reason::Deferred,
        Reason::Requested,
        Reason::EdgeOnlyModel,
        Reason::Sequence,
        Reason::EdgeFailed,
        Reason::CloudUnreachable,
        Reason::CloudFailed,
        Reason::CloudBusy,
        Reason::CloudLate,
        Reason::BreakerOpen,
        Reason::Budget,
        Reason::Hedged,
        Reason::Cheapest,
        Reason::Exploring,
        Reason::UsuallyDeferred,
        Reason::EdgeSlower,
        Reason::EdgeTooSlow,
        Reason::DeadlineTight,
    ];
}

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// The edge model; the cloud where its answer is not accepted.
    #[serde(rename = "edge_first")]
    Edge,
    /// The edge model, and nobody else.
    EdgeOnly,
    /// The cloud; the edge model where it does not answer.
    #[serde(rename = "cloud_first")]
    Cloud,
    /// Both at once; the first acceptable answer wins.
    Hedge,
}

impl First {
    /// `edge_first`, `edge_only`, `cloud_first` or `hedge`.
    pub fn as_str(self) -> &'static str {
        match self {
            First::Edge => "edge_first",
            First::EdgeOnly => "edge_only",
            First::Cloud => "cloud_first",
            First::Hedge => "hedge",
        }
    }
}

/// What was decided for a request before anything ran, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Who is asked first.
    pub first: First,
    /// Why.
    pub reason: Reason,
}

/// What is promised of an answer that the device accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Risk {
    /// With the confidence that the manifest states, at most this share of all accepted answers is
    /// wrong where the cloud's would be right.
    AtMost(f64),
    /// Nothing: the rule was chosen without a bound, or this machine computes other numbers than
    /// those that were calibrated.
    Unverified,
}

impl Risk {
    /// The share, where there is one.
    pub fn at_most(self) -> Option<f64> {
        match self {
            Self::AtMost(share) => Some(share),
            Self::Unverified => None,
        }
    }
}

/// What is said about an answer beside its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Where it came from.
    pub placement: Placement,
    /// Why from there.
    pub reason: Reason,
    /// What was planned, and why; nothing where nobody plans: in the cloud.
    pub plan: Option<Plan>,
    /// The version of the model that answered.
    pub version: Version,
    /// Lowest confidence over the items of the request, calibrated where the bundle is; `None`
    /// where the model has no logits to read it from.
    pub confidence: Option<f32>,
    /// What is promised; only of answers that a rule accepted on the device.
    pub risk: Option<Risk>,
    /// The label of the most probable class, for a request of one item and a labelled model.
    pub label: Option<String>,
    /// Where the time went.
    pub timing: Timing,
    /// How many nodes of the cloud were asked for it: two where the first died or drained before it
    /// answered.
    pub attempts: u32,
    /// Bytes of inputs that need not go to the cloud, because they travelled packed.
    pub saved_bytes: u64,
}

/// Where the time of one request went, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a session.
    pub queue_us: u64,
    /// Running the model, pre-processing included.
    pub infer_us: u64,
    /// On the way to the cloud and back, without the cloud's own queue and run.
    pub network_us: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    /// Which model answered.
    pub model: ModelName,
    /// The request's id.
    pub id: String,
    /// The outputs.
    pub outputs: Vec<Tensor>,
    /// Where it came from, why, and how sure.
    pub verdict: Verdict,
}
