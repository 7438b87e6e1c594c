//! The control stream: desired state comes down, reported state goes up.

use crate::engine::Engine;
use ::link::connection::Connection;
use ::link::device;
use ::link::frames::LinkError;
use protocol::wire::{DesiredState, Hello, ReportedState};
use tokio::sync::watch;

/// An open control stream.
pub(crate) struct ControlStream {
    stream: device::ControlStream,
    /// Why the connection is over what it is over.
    why: &'static str,
}

/// Says hello and hears what the cloud wants. `why` the connection is over QUIC, or over TCP.
pub(crate) async fn open(
    connection: &Connection,
    why: &'static str,
    reported: &mut watch::Receiver<ReportedState>,
) -> Result<ControlStream, LinkError> {
    let hello = Hello {
        agent_version: crate::program::version().into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        reported: Some(with_reason(&reported.borrow_and_update(), why)),
    };
    Ok(ControlStream { stream: device::ControlStream::open(connection, &hello).await?, why })
}

impl ControlStream {
    /// The cloud's first word.
    pub(crate) fn first(&self) -> &DesiredState {
        &self.stream.first
    }
}

fn with_reason(state: &ReportedState, why: &str) -> ReportedState {
    ReportedState { carrier_reason: why.to_owned(), ..state.clone() }
}

/// Passes states on in both directions until the stream ends, and evidence up.
pub(crate) async fn serve(
    stream: &mut ControlStream,
    desired: &watch::Sender<Option<DesiredState>>,
    reported: &mut watch::Receiver<ReportedState>,
    told: &mut device::Told<Engine>,
) -> Result<(), LinkError> {
    let why = stream.why;
    let say = |state: &ReportedState| with_reason(state, why);
    stream.stream.serve(desired, reported, say, told).await
}
