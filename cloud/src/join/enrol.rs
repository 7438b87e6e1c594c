//! Joining: the token's CA hash decides whether anything is sent at all; then the token buys a
//! certificate for the key that was made here.

use link::connection::{Connection, Ended};
use link::dial::{DialError, Dialler, Target};
use link::frames::{self, LinkError};
use link::{pki, tls};
use protocol::ALPN_NODE_ENROL;
use protocol::carrier::Wanted;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::{InvalidToken, Token};
use protocol::wire::{EnrolReply, EnrolRequest};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::chain_of;
use super::files::{Files, FilesError};
use crate::settings::{Node, split_address};

const PATIENCE: Duration = Duration::from_secs(15);

/// Why this node is not connected to its control node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has not joined, and there is no token.
    #[error(
        "this node has not joined a fleet; make a token with \"outrigger node token -o FILE\" and name it by --token-file"
    )]
    NoToken,
    /// The token's file.
    #[error("cannot read the token in {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token itself.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The control node's address.
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    /// It is silent.
    #[error("the control node at {0} does not answer")]
    Silent(String),
    /// It refused.
    #[error("the control node refused: {0}")]
    Refused(Problem),
    /// It has another CA, or says something that makes no sense.
    #[error("the control node does not show the CA that is known")]
    WrongCa,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No connection was made.
    #[error(transparent)]
    Dial(DialError),
    /// The connection.
    #[error("the connection to the control node ended")]
    Connection(#[from] Ended),
    /// A stream of it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// This node's identity.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// What it said was not taken over.
    #[error(transparent)]
    Copy(#[from] crate::store::replica::CopyError),
    /// The database.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl JoinError {
    /// Whether the control node has shut this node out.
    pub(super) fn is_removal(&self) -> bool {
        let ended = match self {
            Self::Connection(ended) | Self::Link(LinkError::Connection(ended)) => ended,
            _ => return false,
        };
        matches!(ended, Ended::ByPeer { code: ProblemCode::Unauthorised, .. })
    }
}

impl From<DialError> for JoinError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Ended(ended) => Self::Connection(ended),
            other => Self::Dial(other),
        }
    }
}

/// Joins by the token that the settings name, and keeps what comes of it.
pub(super) async fn enrol(files: &Files, settings: &Node) -> Result<(), JoinError> {
    let path = settings.token_file.clone();
    if path.as_os_str().is_empty() {
        return Err(JoinError::NoToken);
    }
    let text = std::fs::read_to_string(&path);
    let token: Token = text.map_err(|source| JoinError::TokenFile { path, source })?.parse()?;
    let asked = tokio::time::timeout(PATIENCE, ask(files, &settings.join, &token)).await;
    asked.map_err(|_| JoinError::Silent(settings.join.clone()))?
}

async fn ask(files: &Files, control: &str, token: &Token) -> Result<(), JoinError> {
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.reveal(),
        csr: files.key()?.signing_request().map_err(FilesError::from)?.into(),
        hostname: link::system::host_name().unwrap_or_default(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
    };
    let tls = tls::pinned_client(token.ca_hash, ALPN_NODE_ENROL)?;
    let way = Way::to(control)?;
    let connection = way.connect(&tls).await?;
    let shown = connection.peer_certificates();
    let named = tls::find_ca(&shown, token.ca_hash);
    // The token may be older than the CA that took the place of the one that it names.
    let cas = pki::followed(named.as_slice(), &shown);
    let ca = cas.into_iter().next().ok_or(JoinError::WrongCa)?;
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send_last(&mut send, &request, []).await?;
    let reply: EnrolReply = frames::receive(&mut receive).await.map_err(|error| match error {
        LinkError::Refused(problem) => JoinError::Refused(problem),
        other => other.into(),
    })?;
    connection.finish().await;
    files.keep(&chain_of(&reply.certificates), &ca)?;
    tracing::info!(node = reply.device_id, control, "joined");
    Ok(())
}

/// The way to the control node: where it is, and over what it was reached.
#[derive(Debug)]
pub(super) struct Way {
    target: Target,
    dialler: Dialler,
}

impl Way {
    pub(super) fn to(control: &str) -> Result<Self, JoinError> {
        let (host, port) =
            split_address(control).ok_or_else(|| JoinError::Address(control.to_owned()))?;
        let host = host.to_owned();
        let target = Target { server_name: host.clone(), host, port };
        Ok(Self { target, dialler: Dialler::new(Wanted::Auto, None) })
    }

    /// Connects, over QUIC where that works.
    pub(super) async fn connect(
        &self,
        tls: &rustls::ClientConfig,
    ) -> Result<Connection, JoinError> {
        Ok(self.dialler.dial(&self.target, tls).await?)
    }

    /// Waits until there is something better than this connection, for ever if it is best.
    pub(super) async fn better(
        &self,
        connection: &Connection,
        tls: impl Fn() -> Option<rustls::ClientConfig>,
    ) -> Connection {
        self.dialler.better(connection, &self.target, tls).await
    }
}
