//! The local API: the Open Inference Protocol over HTTP and gRPC, on loopback addresses and on a
//! Unix socket.
//!
//! It answers only what comes from this machine on purpose: over TCP the Host must be a loopback
//! name (against DNS rebinding), and a browser's Origin is refused everywhere. Where applications
//! are configured, each one shows its token over TCP; who may open the Unix socket is decided by the
//! file's permissions.

mod applications;
mod guard;
mod inference;
mod metrics;
mod quarantine;
mod status;

pub(crate) use applications::Applications;
pub(crate) use guard::Door;
pub(crate) use metrics::metrics_router;
pub(crate) use quarantine::QUARANTINE_PATH;
pub(crate) use status::{ModelStatus, NodeStatus, PeerStatus, StatusReport};

use crate::clock::Clock;
use crate::counters::Counters;
use crate::identity::IdentityFiles;
use crate::install::Installer;
use crate::peers::Peers;
use crate::program::Own;
use crate::requests::Requests;
use crate::telemetry::Recorder;
use crate::uplink::Uplink;
use ::link::otlp::Otlp;
use ::link::traces::Traces;
use axum::routing::get;
use axum::{Router, middleware};
use protocol::id::DeviceId;
use std::sync::Arc;

/// What the handlers share.
pub(crate) struct Context {
    pub(crate) requests: Arc<Requests>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uplink: Uplink,
    pub(crate) installer: Arc<Installer>,
    pub(crate) device: DeviceId,
    pub(crate) cloud: String,
    pub(crate) identity: IdentityFiles,
    pub(crate) intake: oip::Intake,
    pub(crate) clock: Arc<Clock>,
    pub(crate) traces: Traces,
    /// The way of all that to a collector.
    pub(crate) otlp: Otlp,
    pub(crate) program: Arc<Own>,
    /// Nothing where the owner wants no telemetry.
    pub(crate) recorder: Option<Arc<Recorder>>,
    /// None where the owner wants none.
    pub(crate) peers: Option<Arc<Peers>>,
}

/// The routes, as whoever comes through this door may use them.
pub(crate) fn router(context: Arc<Context>, door: Door) -> Router {
    let managing = match door {
        Door::Unix => quarantine::routes(context.clone()),
        Door::Tcp(_) => Router::new(),
    };
    let gate = guard::Gate { counters: context.counters.clone(), door };
    oip::router(context.clone())
        .merge(managing)
        .route("/outrigger/status", get(status::status).with_state(context))
        .layer(middleware::from_fn_with_state(Arc::new(gate), guard::admit))
}
