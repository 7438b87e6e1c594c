//! The connection to the cloud: one QUIC connection, kept up by [`Keeper`], and the three
//! things that travel on it: control ([`control`]), deferrals ([`deferral`]) and blobs ([`blob`]).
//! Enrolment ([`enrol`]) and renewal ([`renew`]) are connections of their own.

pub(crate) mod blob;
pub(crate) mod control;
pub(crate) mod deferral;
pub(crate) mod enrol;
pub(crate) mod renew;

use crate::config;
use crate::counters::Counters;
use crate::identity::{IdentityError, IdentityFiles};
use ::link::frames::LinkError;
use ::link::{quic, tls};
use edge::backoff::Backoff;
use protocol::problem::ProblemCode;
use protocol::wire::{DesiredState, ReportedState};
use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UplinkError {
    #[error("{0:?} is not HOST:PORT")]
    Endpoint(String),
    #[error("{host} cannot be resolved")]
    Resolve { host: String, source: io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    #[error("TLS cannot be configured")]
    Tls(#[from] tls::TlsError),
    #[error("QUIC cannot be configured")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    #[error("{}", explain(.0))]
    Connection(ConnectionError), // explained in full, so not named again as a source
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<ConnectionError> for UplinkError {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// A connection's end in words that a person can act on.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "the cloud does not answer".into(),
        ConnectionError::ApplicationClosed(close) => {
            let number = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            let code = ProblemCode::from_number(number).as_str();
            format!(
                "the cloud closed the connection ({code}): {}",
                String::from_utf8_lossy(&close.reason)
            )
        }
        other => other.to_string(),
    }
}

/// `HOST:PORT` of a cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloudAddress {
    host: String,
    port: u16,
}

impl std::str::FromStr for CloudAddress {
    type Err = UplinkError;
    fn from_str(text: &str) -> Result<Self, UplinkError> {
        let invalid = || UplinkError::Endpoint(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| invalid())? })
    }
}

impl CloudAddress {
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, UplinkError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut found =
            found.map_err(|source| UplinkError::Resolve { host: self.host.clone(), source })?;
        found.next().ok_or_else(|| UplinkError::NoAddress(self.host.clone()))
    }

    /// A connection with this TLS configuration, and the endpoint that carries it.
    pub(crate) async fn connect(
        &self,
        tls: rustls::ClientConfig,
    ) -> Result<(Endpoint, Connection), UplinkError> {
        let address = self.resolve().await?;
        let local = quic::local_address_for(address);
        let endpoint = quic::endpoint(local).map_err(UplinkError::Socket)?;
        let connecting = endpoint.connect_with(quic::client(tls)?, address, &self.host)?;
        let connection = connecting.await?;
        Ok((endpoint, connection))
    }
}

/// What of the connection others need: is it there, and the states that flow over it.
#[derive(Clone)]
pub(crate) struct Uplink {
    connection: watch::Receiver<Option<Connection>>,
}

impl Uplink {
    /// The connection, while there is one.
    pub(crate) fn connection(&self) -> Option<Connection> {
        let connection = self.connection.borrow().clone();
        connection.filter(|c| c.close_reason().is_none())
    }

    /// Waits until there is a connection.
    pub(crate) async fn connected(&self) -> Connection {
        let mut receiver = self.connection.clone();
        loop {
            if let Some(connection) = self.connection() {
                return connection;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await; // the agent is shutting down
            }
        }
    }
}

/// Keeps the connection up.
pub(crate) struct Keeper {
    pub(crate) address: CloudAddress,
    pub(crate) identity: IdentityFiles,
    pub(crate) policy: config::Link,
    pub(crate) counters: Arc<Counters>,
    pub(crate) desired: watch::Sender<Option<DesiredState>>,
    pub(crate) reported: watch::Receiver<ReportedState>,
}

impl Keeper {
    /// The uplink, and the task that keeps it up until it is dropped.
    pub(crate) fn start(self) -> (Uplink, impl Future<Output = ()>) {
        let (sender, connection) = watch::channel(None);
        (Uplink { connection }, self.run(sender))
    }

    async fn run(self, sender: watch::Sender<Option<Connection>>) {
        let cap = Duration::from_secs(self.policy.reconnect_max_s.max(1).into());
        let mut backoff = Backoff::new(Duration::from_millis(200), cap);
        loop {
            let why = match self.hold(&sender, &mut backoff).await {
                Ok(()) => "the cloud ended the control stream".to_owned(),
                Err(error) => protocol::problem::chain(&error),
            };
            sender.send_replace(None);
            let delay = backoff.next_delay(u64::from_le_bytes(::link::entropy()));
            self.counters.disconnected(&self.address.to_string(), &why, delay.as_millis());
            tokio::time::sleep(delay).await;
        }
    }

    /// Connects and serves the control stream until the connection ends.
    async fn hold(
        &self,
        sender: &watch::Sender<Option<Connection>>,
        backoff: &mut Backoff,
    ) -> Result<(), UplinkError> {
        let tls =
            tls::client(&self.identity.ca()?, Some(self.identity.tls()?), protocol::ALPN_AGENT)?;
        let (endpoint, connection) = self.address.connect(tls).await?;
        let mut reported = self.reported.clone();
        let mut stream = control::open(&connection, &mut reported).await?;
        // Only now is it known that the cloud accepts this device.
        self.desired.send_replace(Some(stream.first.clone()));
        sender.send_replace(Some(connection.clone()));
        backoff.reset();
        self.counters.connected(&self.address.to_string());
        let result = control::serve(&mut stream, &self.desired, &mut reported).await;
        quic::close(&connection, ProblemCode::None, "");
        drop(endpoint);
        Ok(result?)
    }
}

impl std::fmt::Display for CloudAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["cloud.example:8443", "127.0.0.1:1", "[::1]:8443"] {
            assert_eq!(good.parse::<CloudAddress>().unwrap().to_string(), good);
        }
        for bad in ["cloud", ":8443", "cloud:", "cloud:99999"] {
            assert!(bad.parse::<CloudAddress>().is_err(), "{bad}");
        }
    }
}
