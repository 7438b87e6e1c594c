//! The connections to the cloud.
//!
//! One connection leads to the control node and is kept up by [`Keeper`]; control ([`control`])
//! and blobs ([`blob`]) travel on it. How each connection is made, over QUIC or TCP, is in [`mod@way`]. Deferrals go over it too, or to inference nodes: [`nodes`] keeps
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
pub(crate) mod gate;
mod keeper;
mod listed;
mod nodes;
mod pulse;
pub(crate) mod renew;
mod time;
mod way;

pub(crate) use keeper::Keeper;
pub(crate) use listed::LISTED_FILE;
pub(crate) use nodes::CONTROL;
pub(crate) use time::TimeError;
pub(crate) use way::{CloudAddress, Way};

use crate::identity::IdentityError;
use ::link::connection::{Connection, Ended};
use ::link::dial::DialError;
use ::link::frames::LinkError;
use ::link::tls;
use ::link::traces::Trace;
use deferral::CloudAnswer;
use edge::offload::Grant;
use edge::paths::LinkCounters;
use keeper::Bulk;
use nodes::Nodes;
use protocol::id::Version;
use protocol::infer::InferRequest;
use protocol::problem::{Problem, ProblemCode};
use protocol::transport::Parcel;
use rustls_pki_types::CertificateDer;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long an agent that stops waits until the other ends know.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UplinkError {
    #[error("{0:?} is not HOST:PORT")]
    Endpoint(String),
    #[error(transparent)]
    Dial(DialError),
    #[error("no runtime for the network")]
    Runtime(#[source] io::Error),
    #[error("TLS cannot be configured")]
    Tls(#[from] tls::TlsError),
    #[error("{}", explain(.0))]
    Connection(Ended), // explained in full, so not named again as a source
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
            Self::Dial(error) => error.hint(),
            Self::Identity(error) => error.hint(),
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
        matches!(ended, Ended::ByPeer { code: ProblemCode::Unauthorised, .. })
    }
}

impl From<Ended> for UplinkError {
    fn from(ended: Ended) -> Self {
        Self::Connection(ended)
    }
}

impl From<DialError> for UplinkError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Ended(ended) => Self::Connection(ended),
            other => Self::Dial(other),
        }
    }
}

/// A connection's end in words that a person can act on.
fn explain(ended: &Ended) -> String {
    match ended {
        Ended::Silent => "the cloud does not answer".into(),
        Ended::ByPeer { code, reason } => {
            format!("the cloud closed the connection ({}): {reason}", code.as_str())
        }
        other => other.to_string(),
    }
}

/// A connection whose peer was verified to the end.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// The fleet CA behind it.
    pub(crate) ca: CertificateDer<'static>,
}

/// What is asked of the cloud.
pub(crate) struct Question<'a> {
    pub(crate) request: &'a InferRequest,
    /// Its inputs as they travel.
    pub(crate) parcel: &'a Parcel,
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
    bulk: Arc<Bulk>,
    way: Way,
    /// No connection is kept up any more.
    over: Arc<Notify>,
}

impl Uplink {
    /// Ends all connections in order: the other ends would wait for minutes for a device that goes without a word.
    pub(crate) async fn finish(&self) {
        self.over.notify_one();
        let mut connections = self.nodes.connections();
        connections.extend(self.connection());
        let goodbye = async {
            connections.iter().for_each(|connection| connection.close(ProblemCode::None, ""));
            for connection in &connections {
                connection.finish().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await; // on a dead link nobody hears it
    }

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

    /// A connection for what is large and can wait, once the control node is connected. Over QUIC it is
    /// the same one, where a lost packet holds up nobody else's stream; over TCP one beside it.
    pub(crate) async fn bulk(&self) -> Result<Arc<Connection>, UplinkError> {
        let control = self.connected().await;
        self.bulk.beside(&control).await
    }

    /// What carries the connection to the control node, and why that; nothing without one.
    pub(crate) fn carrier(&self) -> Option<(&'static str, &'static str)> {
        let carrier = self.connection()?.carrier();
        Some((carrier.as_str(), self.way.why(carrier)))
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

    /// Whom deferrals can go to, how they stand, and over what, for people.
    pub(crate) fn nodes(&self) -> Vec<(String, &'static str, Option<&'static str>)> {
        self.nodes.describe()
    }
}
