//! The connections to the cloud.
//!
//! One QUIC connection leads to the control node and is kept up by [`Keeper`]; control ([`control`])
//! and blobs ([`blob`]) travel on it. Deferrals go over it too, or to inference nodes: [`nodes`] keeps
//! connections to a few of them and carries out what `edge::balance` decides; [`deferral`] is one
//! request on one connection, whoever keeps it; [`pulse`] sees that a node is dead long before QUIC
//! does. Where the nodes are is remembered ([`listed`]), so that they are found without a control node.
//!
//! Enrolment ([`enrol`]) and renewal ([`renew`]) are connections of their own. Each connection to the
//! control node begins with the time ([`mod@time`]); nodes cannot tell it.

pub(crate) mod blob;
pub(crate) mod control;
pub(crate) mod deferral;
pub(crate) mod enrol;
mod keeper;
mod listed;
mod nodes;
mod pulse;
pub(crate) mod renew;
mod time;

pub(crate) use keeper::Keeper;
pub(crate) use listed::LISTED_FILE;
pub(crate) use nodes::CONTROL;
pub(crate) use time::TimeError;

use crate::clock::Clock;
use crate::identity::IdentityError;
use ::link::frames::LinkError;
use ::link::traces::Trace;
use ::link::{quic, tls};
use deferral::CloudAnswer;
use edge::offload::Grant;
use edge::paths::LinkCounters;
use nodes::Nodes;
use protocol::id::{ContentHash, NodeId, Version};
use protocol::infer::InferRequest;
use protocol::problem::{Problem, ProblemCode};
use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
        let (endpoint, connection) = self.shake_hands(tls, &self.host).await?;
        let ca = match trust {
            tls::Trust::Ca(ca) => ca,
            tls::Trust::Hash(hash) => shown_ca(&connection, hash).ok_or(UplinkError::NoCa)?,
        };
        time::settle(&connection, &ca, clock).await?;
        Ok(Link { connection, ca, endpoint })
    }

    /// A connection to an inference node of this fleet. Its certificate bears the node's name, wherever
    /// it runs, and is judged by what this device knows of the time.
    async fn connect_node(
        &self,
        node: &NodeId,
        ca: CertificateDer<'static>,
        identity: tls::Identity,
        clock: &Clock,
    ) -> Result<Link, UplinkError> {
        let trust = tls::Trust::Ca(ca.clone());
        let tls = tls::agent(trust, Some(identity), protocol::ALPN_AGENT)?;
        let (endpoint, connection) = self.shake_hands(tls, &node.server_name()).await?;
        time::judge(&connection, clock)?;
        Ok(Link { connection, ca, endpoint })
    }

    async fn shake_hands(
        &self,
        tls: rustls::ClientConfig,
        name: &str,
    ) -> Result<(Endpoint, Connection), UplinkError> {
        let address = self.resolve().await?;
        let local = quic::local_address_for(address);
        let endpoint = quic::endpoint(local).map_err(UplinkError::Socket)?;
        let connecting = endpoint.connect_with(quic::client(tls)?, address, name)?;
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

/// What is asked of the cloud.
pub(crate) struct Question<'a> {
    pub(crate) request: &'a InferRequest,
    /// The one whose edge answer was deferred.
    pub(crate) version: Version,
    /// Nobody waits for the answer: it goes behind everything else.
    pub(crate) check: bool,
    /// Whom each attempt is a part of.
    pub(crate) trace: &'a Trace,
}

/// An error with its causes and its hint, for the log.
fn explained(error: &UplinkError) -> String {
    let text = protocol::problem::chain(error);
    match error.hint() {
        "" => text,
        hint => format!("{text} (hint: {hint})"),
    }
}

/// What the rest of the agent needs of the cloud: the connection to the control node, while there is
/// one, and answers, whoever gives them.
#[derive(Clone)]
pub(crate) struct Uplink {
    control: watch::Receiver<Option<Connection>>,
    nodes: Arc<Nodes>,
}

impl Uplink {
    /// The connection to the control node, while there is one.
    pub(crate) fn connection(&self) -> Option<Connection> {
        let connection = self.control.borrow().clone();
        connection.filter(|c| c.close_reason().is_none())
    }

    /// Waits until the control node is connected.
    pub(crate) async fn connected(&self) -> Connection {
        let mut receiver = self.control.clone();
        loop {
            if let Some(connection) = self.connection() {
                return connection;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await; // the agent is shutting down
            }
        }
    }

    /// Whether anybody can be asked for an answer.
    pub(crate) fn can_ask(&self) -> bool {
        self.nodes.can_ask()
    }

    /// What the nearest of the connections counts.
    pub(crate) fn link(&self) -> Option<LinkCounters> {
        self.nodes.link()
    }

    /// Asks for an answer within what was granted. A node that dies or drains before it answers is
    /// made up for by another, once ([`edge::balance::ATTEMPTS_MAX`]).
    pub(crate) async fn ask(
        &self,
        question: &Question<'_>,
        grant: Grant,
    ) -> Result<CloudAnswer, Problem> {
        self.nodes.ask(question, grant).await
    }

    /// Whom deferrals can go to, and how they stand, for people.
    pub(crate) fn nodes(&self) -> Vec<(String, &'static str)> {
        self.nodes.describe()
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
