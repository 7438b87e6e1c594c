//! A peer over QUIC or TCP that says what a test wants it to say, well-formed or not.

use link::connection::{Connection, Ended};
use link::dial::{Dialler, Target};
use link::{pki, tls};
use protocol::carrier::Wanted;
use protocol::problem::ProblemCode;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::Path;

/// The fleet CA that the device with this state folder knows, and its own certificate and key.
///
/// # Errors
/// They cannot be read.
pub fn identity(state_dir: &Path) -> anyhow::Result<(CertificateDer<'static>, tls::Identity)> {
    let read = |name: &str| std::fs::read(state_dir.join(name));
    let ca = pki::chain_from_pem(&read("ca.pem")?)?.remove(0);
    let chain = pki::chain_from_pem(&read("device.pem")?)?;
    let key = pki::key_from_pem(&read("device.key")?)?;
    Ok((ca, tls::Identity { chain, key: key.into() }))
}

/// A connection with the identity of an enrolled device.
pub struct RawLink {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
}

impl RawLink {
    /// Connects as the device whose state folder this is.
    ///
    /// # Errors
    /// No identity there, or no connection.
    pub fn connect(state_dir: &Path, cloud: &str) -> anyhow::Result<Self> {
        let (ca, own) = identity(state_dir)?;
        Self::connect_with(&tls::client(&ca, Some(own), protocol::ALPN_AGENT)?, cloud, Wanted::Quic)
    }

    /// Connects without a certificate, as the CA in this folder's cloud allows anybody to try.
    ///
    /// # Errors
    /// No connection.
    pub fn connect_anonymously(ca_pem: &Path, alpn: &[u8], cloud: &str) -> anyhow::Result<Self> {
        let ca = pki::chain_from_pem(&std::fs::read(ca_pem)?)?.remove(0);
        Self::connect_with(&tls::client(&ca, None, alpn)?, cloud, Wanted::Quic)
    }

    fn connect_with(
        tls: &rustls::ClientConfig,
        cloud: &str,
        wanted: Wanted,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address: SocketAddr = cloud.parse()?;
        let host = address.ip().to_string();
        let target = Target { server_name: host.clone(), host, port: address.port() };
        let connection = runtime.block_on(Dialler::new(wanted, None).dial(&target, tls))?;
        Ok(Self { runtime, connection })
    }

    /// Opens a stream, sends these bytes and its end, and reads what comes until the end.
    ///
    /// # Errors
    /// The stream or the connection breaks.
    pub fn exchange(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.runtime.block_on(async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            send.write_all(bytes).await?;
            send.finish()?;
            Ok(receive.read_to_end(1 << 20).await?)
        })
    }

    /// Talks over the connection as the test says.
    pub fn talk<T>(&self, say: impl AsyncFnOnce(Connection) -> T) -> T {
        self.runtime.block_on(say(self.connection.clone()))
    }

    /// Waits until the cloud closes the connection; with which code.
    ///
    /// # Errors
    /// It does not, or ends without a code of ours.
    pub fn closed_with(&self) -> anyhow::Result<ProblemCode> {
        let patience = std::time::Duration::from_secs(5);
        let closed = async { tokio::time::timeout(patience, self.connection.closed()).await };
        match self.runtime.block_on(closed)? {
            Ended::ByPeer { code, .. } => Ok(code),
            other => Err(other.into()),
        }
    }
}
