//! Agents: accepts their connections over QUIC, is given those over TCP (`tcp`), and serves what is
//! asked on them. One task per connection, one per stream; the protocol a connection speaks is its ALPN.

use link::connection::{Connection, RecvStream, SendStream};
use protocol::problem::{Problem, ProblemCode};
use protocol::{ALPN_AGENT, ALPN_ENROL, ALPN_NODE, ALPN_NODE_ENROL, ALPN_RENEW, wire};
use quinn::{Endpoint, Incoming};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

use crate::nodes;
use crate::state::Cloud;
use link::frames::{self, LinkError};

pub(crate) mod blob;
mod control;
mod enrol;
mod infer;
mod metadata;
pub(crate) mod once;
mod pulse;
mod renew;
mod scope;
mod session;
pub(crate) mod sites;
pub(crate) mod tcp;
mod telemetry;
mod time;

/// From a connection's first packet to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From a stream's opening to its first frame.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// For a peer to take in the last words before the connection is closed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);
/// Accepts connections until the endpoint is closed. A stopping server refuses them, so that whoever
/// comes need not wait to learn that.
pub async fn accept(cloud: Arc<Cloud>, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        if *cloud.stopping.borrow() {
            incoming.refuse();
        } else {
            admit(&cloud, incoming);
        }
    }
}

fn admit(cloud: &Arc<Cloud>, incoming: Incoming) {
    // Each address proves first that it receives. That costs a round trip for each connection, none
    // for a request, and whoever sends under somebody else's address gets less than was sent.
    if !incoming.remote_address_validated() && incoming.may_retry() {
        cloud.events.address_asked_for_proof();
        let _ = incoming.retry(); // cannot fail after may_retry
        return;
    }
    match cloud.limits.connections.clone().try_acquire_owned() {
        Ok(permit) => {
            let handshake = Box::pin(shake_hands(cloud.clone(), incoming));
            tokio::spawn(serve(cloud.clone(), handshake, permit));
        }
        Err(_) => {
            cloud.events.connection_refused(incoming.remote_address());
            incoming.refuse();
        }
    }
}

/// A task is as large as the largest thing that it ever waits for, for as long as a device stays: what is over soon is in
/// a box of its own, here and in all that follows.
async fn serve(
    cloud: Arc<Cloud>,
    handshake: Pin<Box<impl Future<Output = Option<Connection>>>>,
    _permit: OwnedSemaphorePermit,
) {
    let connected = handshake.await; // and its box is gone
    if let Some(connection) = connected {
        speak(cloud, connection).await;
    }
}

async fn shake_hands(cloud: Arc<Cloud>, incoming: Incoming) -> Option<Connection> {
    let remote = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => return Some(connection.into()),
        Ok(Err(error)) => cloud.events.handshake_failed(remote, &error),
        Err(elapsed) => cloud.events.handshake_failed(remote, &elapsed),
    }
    None
}

/// Serves a connection whose handshake is done, to its end.
async fn speak(cloud: Arc<Cloud>, connection: Connection) {
    cloud.events.connection_accepted(connection.remote_address(), connection.carrier());
    match connection.protocol().as_deref() {
        Some(ALPN_ENROL) => Box::pin(enrol::serve(&cloud, &connection)).await,
        Some(ALPN_RENEW) => Box::pin(renew::serve(&cloud, &connection)).await,
        Some(ALPN_NODE_ENROL) => Box::pin(nodes::enrol::serve(&cloud, &connection)).await,
        Some(ALPN_NODE) => Box::pin(nodes::session::serve(cloud, connection)).await,
        Some(ALPN_AGENT) => session::serve(cloud, connection).await,
        _ => connection.close(ProblemCode::Protocol, "unknown ALPN"),
    }
}

/// The code that tells a peer how it broke the protocol; `None` when it did not.
pub(crate) fn violation(error: &LinkError) -> Option<ProblemCode> {
    match error {
        LinkError::Codec(protocol::codec::CodecError::TooLong { .. }) => {
            Some(ProblemCode::TooLarge)
        }
        LinkError::Codec(_) | LinkError::Ended => Some(ProblemCode::Protocol),
        LinkError::Connection(_) | LinkError::Refused(_) | LinkError::Reset(_) => None,
    }
}

/// Answers a stream with a problem, and takes nothing more from it.
pub(crate) async fn answer_problem(
    send: &mut SendStream,
    recv: &mut RecvStream,
    problem: Problem,
) -> Result<(), LinkError> {
    let code = problem.code;
    frames::send_last(send, &wire::Problem::from(problem), []).await?;
    recv.stop(code);
    Ok(())
}

/// The start of a text from a peer.
pub(crate) fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(protocol::limits::NAME_MAX_BYTES).collect()
}
