//! What the agent says of itself: one report, for `outrigger-agent status` and for scripts.

use super::Context;
use crate::audits::AuditStatus;
use crate::clock::ClockStatus;
use crate::engine::Running;
use crate::program::ProgramStatus;
use crate::sandbox::Proof;
use axum::Json;
use axum::extract::State;
use protocol::tuf::metadata::Lifetime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The agent at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusReport {
    pub(crate) device: String,
    pub(crate) cloud: String,
    pub(crate) agent_version: String,
    /// Which program that is, and what became of the next one.
    #[serde(default)]
    pub(crate) program: ProgramStatus,
    /// Whether the cloud is connected.
    pub(crate) connected: bool,
    /// What carries that connection (`quic`, `tcp`), and why that (`udp_answers`, `udp_silent`,
    /// `configured`); empty without one.
    #[serde(default)]
    pub(crate) carrier: String,
    #[serde(default)]
    pub(crate) carrier_reason: String,
    /// Whom deferrals can go to.
    #[serde(default)]
    pub(crate) nodes: Vec<NodeStatus>,
    /// The devices of the site that carry chunks to each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<PeerStatus>,
    /// What this device has of the repository, by role; nothing before it trusts a root.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) repository: BTreeMap<String, Lifetime>,
    /// Whether deferral is suspended after failures.
    pub(crate) breaker_open: bool,
    /// How full the day's budget for the cloud is, 0 to 1; 1 without limits.
    #[serde(default = "full")]
    pub(crate) budget_fill: f64,
    /// The memory that all models share, and what they take of it, in bytes.
    #[serde(default)]
    pub(crate) memory: MemoryStatus,
    /// What the device makes of its clock.
    #[serde(default)]
    pub(crate) clock: ClockStatus,
    pub(crate) models: Vec<ModelStatus>,
    pub(crate) counters: serde_json::Value,
}

/// What an agent without budgets says.
fn full() -> f64 {
    1.0
}

/// One model on the device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ModelStatus {
    pub(crate) name: String,
    pub(crate) active_version: Option<u64>,
    pub(crate) active_bundle: Option<String>,
    pub(crate) threshold: Option<f32>,
    /// The largest share of its accepted answers that is wrong where the cloud's would be right; absent
    /// where nothing is promised, or no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) risk: Option<f64>,
    pub(crate) target_version: Option<u64>,
    pub(crate) phase: String,
    /// Why the target is not active.
    pub(crate) reason: String,
    /// What the trial of the active version showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<Proof>,
    /// How it runs on this machine; nothing for a model that answers nobody.
    #[serde(default)]
    pub(crate) running: Option<Running>,
    /// How its accepted answers compare with the cloud's; nothing before its first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checks: Option<AuditStatus>,
}

/// Whom deferrals can go to: `control`, or an inference node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) node: String,
    pub(crate) state: String,
    /// What carries the connection; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) carrier: Option<String>,
}

/// A device of the same site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    pub(crate) device: String,
    pub(crate) address: String,
    /// Why it is left alone now, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_alone: Option<String>,
}

/// The memory of models.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct MemoryStatus {
    /// The most that all may take together; absent for no limit.
    pub(crate) budget_bytes: Option<u64>,
    /// What they take.
    pub(crate) models_bytes: u64,
}

impl From<(String, &'static str, Option<&'static str>)> for NodeStatus {
    fn from((node, state, carrier): (String, &'static str, Option<&'static str>)) -> Self {
        Self { node, state: state.to_owned(), carrier: carrier.map(str::to_owned) }
    }
}

pub(super) async fn status(State(context): State<Arc<Context>>) -> Json<StatusReport> {
    Json(context.report())
}

impl Context {
    /// When this device's certificate ends, in Unix seconds.
    pub(crate) fn certificate_end_s(&self) -> Option<i64> {
        let chain = self.identity.chain().ok()?;
        Some(::link::pki::DeviceCertificate::parse(chain.first()?).ok()?.not_after_s)
    }

    /// What the agent says of itself now.
    pub(crate) fn report(&self) -> StatusReport {
        let (budget_bytes, models_bytes) = self.requests.engine().memory();
        let (carrier, carrier_reason) = self.uplink.carrier().unwrap_or_default();
        StatusReport {
            device: self.device.to_string(),
            cloud: self.cloud.clone(),
            agent_version: crate::program::version().into(),
            program: self.program.status(),
            connected: self.uplink.connection().is_some(),
            carrier: carrier.into(),
            carrier_reason: carrier_reason.into(),
            nodes: self.uplink.nodes().into_iter().map(NodeStatus::from).collect(),
            peers: self.peers.as_ref().map(|peers| peers.status()).unwrap_or_default(),
            repository: self.installer.repository(),
            breaker_open: self.requests.breaker_is_open(),
            budget_fill: self.requests.budget_fill(),
            memory: MemoryStatus { budget_bytes, models_bytes },
            clock: self.clock.status(),
            models: self.installer.status(),
            counters: serde_json::to_value(&*self.counters).unwrap_or_default(),
        }
    }
}
