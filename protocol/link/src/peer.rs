//! Connections between two devices of a fleet: the streams of [`crate::tcp`], over mutual TLS. A local network lets
//! TCP through, and a file that is verified chunk by chunk gains nothing from QUIC there.

use crate::connection::Connection;
use crate::pki::{DeviceCertificate, PkiError};
use crate::quic::Life;
use crate::tcp::{self, Peer};
use crate::tls::{self, Identity, TlsError};
use protocol::mux::Side;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Every server has a name in TLS; which device it is, its certificate says.
const NAME: &str = "peer.outrigger.internal";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nobody is there, or the handshake failed.
    #[error("no connection to the peer")]
    Io(#[from] io::Error),
    /// Another protocol is spoken there.
    #[error("no peer is at this address")]
    Protocol,
    /// It shows no device's certificate.
    #[error("the peer shows no device's certificate")]
    Certificate(#[from] PkiError),
}

/// Who this device is, to others of its fleet.
#[derive(Debug, Clone)]
pub struct Ends {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Ends {
    /// # Errors
    /// A CA, chain or key that rustls refuses.
    pub fn new(cas: &[CertificateDer<'static>], identity: Identity) -> Result<Self, TlsError> {
        let (client, server) = tls::peers(cas, identity)?;
        Ok(Self { client: client.into(), server: server.into() })
    }

    /// Connects to whoever is there. The caller has its own patience, and judges the certificate.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<(Connection, DeviceCertificate), PeerError> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        tcp::tune(&stream);
        let began = Instant::now();
        let stream = TlsConnector::from(self.client.clone()).connect(name, stream).await?;
        let peer = Peer::of(address, stream.get_ref().1);
        let who = judged(&peer)?;
        let connection =
            tcp::Connection::start(stream, Side::Opens, peer, began.elapsed(), Life::Steady);
        Ok((connection.into(), who))
    }

    /// Shakes hands with who has come. The same is left to the caller.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Connection, DeviceCertificate), PeerError> {
        let address = stream.peer_addr()?;
        tcp::tune(&stream);
        let began = Instant::now();
        let stream = TlsAcceptor::from(self.server.clone()).accept(stream).await?;
        let peer = Peer::of(address, stream.get_ref().1);
        let who = judged(&peer)?;
        let connection =
            tcp::Connection::start(stream, Side::Accepts, peer, began.elapsed(), Life::Steady);
        Ok((connection.into(), who))
    }
}

/// Who it is, by a chain that the handshake has verified.
fn judged(peer: &Peer) -> Result<DeviceCertificate, PeerError> {
    if peer.protocol != protocol::ALPN_PEER {
        return Err(PeerError::Protocol);
    }
    let leaf = peer.certificates.first().ok_or(PkiError::NoDevice)?;
    Ok(DeviceCertificate::parse(leaf)?)
}
