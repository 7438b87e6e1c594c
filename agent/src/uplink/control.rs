//! The control stream: desired state comes down, reported state goes up.

use crate::evidence::Told;
use ::link::connection::{Connection, RecvStream, SendStream};
use ::link::frames::{self, LinkError};
use protocol::mux::Priority;
use protocol::wire::{DesiredState, Hello, ReportedState};
use tokio::sync::watch;

/// An open control stream.
pub(crate) struct ControlStream {
    send: SendStream,
    receive: RecvStream,
    /// Why the connection is over what it is over.
    why: &'static str,
    /// The cloud's first word.
    pub(crate) first: DesiredState,
}

/// Says hello and hears what the cloud wants. `why` the connection is over QUIC, or over TCP.
pub(crate) async fn open(
    connection: &Connection,
    why: &'static str,
    reported: &mut watch::Receiver<ReportedState>,
) -> Result<ControlStream, LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.set_priority(Priority::Control);
    let hello = Hello {
        agent_version: crate::program::version().into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        reported: Some(with_reason(&reported.borrow_and_update(), why)),
    };
    frames::send(&mut send, &hello).await?;
    let first = frames::receive(&mut receive).await?;
    Ok(ControlStream { send, receive, why, first })
}

fn with_reason(state: &ReportedState, why: &str) -> ReportedState {
    ReportedState { carrier_reason: why.to_owned(), ..state.clone() }
}

/// Passes states on in both directions until the stream ends, and evidence up.
pub(crate) async fn serve(
    stream: &mut ControlStream,
    desired: &watch::Sender<Option<DesiredState>>,
    reported: &mut watch::Receiver<ReportedState>,
    told: &mut Told,
) -> Result<(), LinkError> {
    let ControlStream { send, receive, why, .. } = stream;
    let down = async {
        while let Some(header) = frames::next_header(receive).await? {
            desired.send_replace(Some(frames::message(receive, header).await?));
        }
        Ok(())
    };
    let up = async {
        loop {
            // What is waited for may be given up at any time; a frame is sent to its end.
            let evidence = tokio::select! {
                changed = reported.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return Ok(()),
                },
                evidence = told.next() => Some(evidence),
            };
            match evidence {
                Some(evidence) => frames::send(send, &evidence).await?,
                None => {
                    let state = with_reason(&reported.borrow_and_update(), why);
                    frames::send(send, &state).await?;
                }
            }
        }
    };
    // Neither direction is cut in the middle of a frame: the first to end ends the connection.
    tokio::select! { end = down => end, end = up => end }
}
