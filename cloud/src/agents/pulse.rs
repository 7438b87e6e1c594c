//! The stream on which an agent sees that this node lives, and hears that it is about to stop.

use link::connection::{Connection, RecvStream, SendStream};
use link::frames::{self, LinkError};
use link::quic::DEVICE_PATIENCE;
use protocol::codec::FrameHeader;
use protocol::wire::{NodeState, Pulse};
use tokio::sync::Notify;

use crate::state::Cloud;

/// Answers each pulse, and says once, unasked, that the node is going away.
pub(super) async fn serve(
    cloud: &Cloud,
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), LinkError> {
    let _: Pulse = Box::pin(frames::message(&mut recv, header)).await?;
    let asked = Notify::new();
    let listen = async {
        while let Some(header) = frames::next_header(&mut recv).await? {
            let _: Pulse = Box::pin(frames::message(&mut recv, header)).await?;
            asked.notify_one();
        }
        Ok(())
    };
    connection.allow_silence(DEVICE_PATIENCE); // the device is told of it by the first answer
    let patience_ms = u32::try_from(DEVICE_PATIENCE.as_millis()).unwrap_or(u32::MAX);
    let mut told = cloud.draining.subscribe();
    let answer = async {
        loop {
            let draining = *told.borrow_and_update();
            let wait_us = cloud.wait_us();
            let state = NodeState { wait_us, draining, patience_ms };
            Box::pin(frames::send(&mut send, &state)).await?;
            tokio::select! {
                () = asked.notified() => {}
                _ = told.changed(), if !draining => {}
            }
        }
    };
    tokio::select! { end = listen => end, end = answer => end }
}
