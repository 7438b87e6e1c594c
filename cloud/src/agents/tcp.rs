//! Agents and nodes whose network lets no UDP through: the same streams over TLS and TCP, on the port of
//! HTTPS. Who they are, and what they may, is judged as over QUIC.

use link::connection::Connection;
use link::quic::Life;
use link::tcp::{self, Peer};
use protocol::mux::Side;
use protocol::problem::ProblemCode;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::speak;
use crate::state::Cloud;

/// The connections over TCP that are open.
#[derive(Debug, Default)]
pub struct OverTcp(Mutex<HashMap<usize, Connection>>);

impl OverTcp {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Ends them all, and waits until they know.
    pub(crate) async fn close(&self, code: ProblemCode, reason: &str) {
        let open: Vec<Connection> = self.lock().values().cloned().collect();
        for connection in &open {
            connection.close(code, reason);
        }
        for connection in &open {
            connection.finish().await;
        }
    }
}

/// Takes over a connection whose handshake is done. A stopping server refuses it, as over QUIC.
pub(crate) fn take(
    cloud: &Arc<Cloud>,
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    round_trip: Duration,
) -> io::Result<()> {
    let Ok(permit) = cloud.limits.connections.clone().try_acquire_owned() else {
        cloud.events.connection_refused(address);
        return Err(io::Error::other("too many agents are connected"));
    };
    if *cloud.stopping.borrow() {
        return Err(io::Error::other("the server is stopping"));
    }
    tcp::tune(stream.get_ref().0);
    let peer = Peer::of(address, stream.get_ref().1);
    let connection: Connection =
        tcp::Connection::start(stream, Side::Accepts, peer, round_trip, Life::Steady).into();
    cloud.over_tcp.lock().insert(connection.stable_id(), connection.clone());
    let cloud = cloud.clone();
    tokio::spawn(async move {
        let _permit = permit;
        speak(cloud.clone(), connection.clone()).await;
        cloud.over_tcp.lock().remove(&connection.stable_id());
    });
    Ok(())
}
