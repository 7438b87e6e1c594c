//! The connection to the cloud: one QUIC connection, kept up by [`Keeper`], and the three
//! things that travel on it: control ([`control`]), deferrals ([`deferral`]) and blobs ([`blob`]).
//! Enrolment ([`enrol`]) and renewal ([`renew`]) are connections of their own. Each begins with the
//! time ([`mod@time`]).

pub(crate) mod blob;
pub(crate) mod control;
pub(crate) mod deferral;
pub(crate) mod enrol;
pub(crate) mod renew;
mod time;

pub(crate) use time::TimeError;

use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::identity::{IdentityError, IdentityFiles};
use ::link::frames::LinkError;
use ::link::{quic, tls};
use edge::backoff::Backoff;
use protocol::id::ContentHash;
use protocol::problem::ProblemCode;
use protocol::wire::{DesiredState, ReportedState};
use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

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
    #[error("the cloud shows no CA that is known")]
    NoCa,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Time(#[from] TimeError),
}

impl UplinkError {
    /// What a person can do about it, where this says more than that there is no connection.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Time(error) => error.hint(),
            _ => "",
        }
    }

    /// Whether the cloud took this device's certificate for no good.
    fn is_unauthorised(&self) -> bool {
        let ended = match self {
            Self::Connection(ended)
            | Self::Link(LinkError::Connection(ended))
            | Self::Time(TimeError::Link(LinkError::Connection(ended))) => ended,
            _ => return false,
        };
        let code = u64::from(ProblemCode::Unauthorised.number());
        matches!(ended, ConnectionError::ApplicationClosed(c) if c.error_code.into_inner() == code)
    }
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

    /// A connection to a cloud of this fleet whose certificate is valid at the time that its CA
    /// tells, and the endpoint that carries it.
    pub(crate) async fn connect(
        &self,
        trust: tls::Trust,
        identity: Option<tls::Identity>,
        alpn: &[u8],
        clock: &Clock,
    ) -> Result<Link, UplinkError> {
        let tls = tls::agent(trust.clone(), identity, alpn)?;
        let (endpoint, connection) = self.shake_hands(tls).await?;
        let ca = match trust {
            tls::Trust::Ca(ca) => ca,
            tls::Trust::Hash(hash) => shown_ca(&connection, hash).ok_or(UplinkError::NoCa)?,
        };
        time::settle(&connection, &ca, clock).await?;
        Ok(Link { connection, ca, endpoint })
    }

    async fn shake_hands(
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

/// A connection whose peer was verified to the end.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// The fleet CA behind it.
    pub(crate) ca: CertificateDer<'static>,
    endpoint: Endpoint, // carries the connection
}

impl Link {
    /// Ends it in order, and waits until the cloud knows.
    pub(crate) async fn finish(self) {
        quic::close(&self.connection, ProblemCode::None, "");
        self.endpoint.wait_idle().await;
    }
}

fn shown_ca(connection: &Connection, hash: ContentHash) -> Option<CertificateDer<'static>> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::find_ca(&shown, hash)
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

/// How often the time is asked for on a connection that stays.
const TIME_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// An error with its causes and its hint, for the log.
fn explained(error: &UplinkError) -> String {
    let text = protocol::problem::chain(error);
    match error.hint() {
        "" => text,
        hint => format!("{text} (hint: {hint})"),
    }
}

/// Keeps the connection up.
pub(crate) struct Keeper {
    pub(crate) address: CloudAddress,
    pub(crate) identity: IdentityFiles,
    pub(crate) policy: config::Link,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<Clock>,
    /// Rung when the cloud takes this device's certificate for no good.
    pub(crate) renewal: Arc<Notify>,
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
                Err(error) => {
                    if error.is_unauthorised() {
                        self.renewal.notify_one();
                    }
                    explained(&error)
                }
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
        let (trust, own) = (tls::Trust::Ca(self.identity.ca()?), Some(self.identity.tls()?));
        let link = self.address.connect(trust, own, protocol::ALPN_AGENT, &self.clock).await?;
        let connection = &link.connection;
        let mut reported = self.reported.clone();
        let mut stream = control::open(connection, &mut reported).await?;
        // Only now is it known that the cloud accepts this device.
        self.desired.send_replace(Some(stream.first.clone()));
        sender.send_replace(Some(connection.clone()));
        backoff.reset();
        self.counters.connected(&self.address.to_string());
        let result = tokio::select! {
            result = control::serve(&mut stream, &self.desired, &mut reported) => result,
            () = self.keep_time(&link) => Ok(()),
        };
        quic::close(connection, ProblemCode::None, "");
        Ok(result?)
    }

    /// Counters drift and clouds' clocks are set, so a long connection asks again and again. What
    /// is refused is counted; the connection was good when it began.
    async fn keep_time(&self, link: &Link) {
        loop {
            tokio::time::sleep(TIME_PERIOD).await;
            let _ = time::settle(&link.connection, &link.ca, &self.clock).await;
        }
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
