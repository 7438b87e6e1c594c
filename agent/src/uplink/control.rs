//! The control stream: desired state comes down, reported state goes up.

use ::link::frames::{self, LinkError};
use protocol::wire::{DesiredState, Hello, ReportedState};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::watch;

/// An open control stream.
pub(crate) struct ControlStream {
    send: SendStream,
    receive: RecvStream,
    /// The cloud's first word.
    pub(crate) first: DesiredState,
}

/// Says hello and hears what the cloud wants.
pub(crate) async fn open(
    connection: &Connection,
    reported: &mut watch::Receiver<ReportedState>,
) -> Result<ControlStream, LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let hello = Hello {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        reported: Some(reported.borrow_and_update().clone()),
    };
    frames::send(&mut send, &hello).await?;
    let first = frames::receive(&mut receive).await?;
    Ok(ControlStream { send, receive, first })
}

/// Passes states on in both directions until the stream ends.
pub(crate) async fn serve(
    stream: &mut ControlStream,
    desired: &watch::Sender<Option<DesiredState>>,
    reported: &mut watch::Receiver<ReportedState>,
) -> Result<(), LinkError> {
    let ControlStream { send, receive, .. } = stream;
    let down = async {
        while let Some(header) = frames::next_header(receive).await? {
            desired.send_replace(Some(frames::message(receive, header).await?));
        }
        Ok(())
    };
    let up = async {
        while reported.changed().await.is_ok() {
            let state = reported.borrow_and_update().clone();
            frames::send(send, &state).await?;
        }
        Ok(())
    };
    // Neither direction is cut in the middle of a frame: the first to end ends the connection.
    tokio::select! { end = down => end, end = up => end }
}
