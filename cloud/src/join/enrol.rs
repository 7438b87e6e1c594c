//! Joining: the token's CA hash decides whether anything is sent at all; then the token buys a
//! certificate for the key that was made here.

use link::frames::{self, LinkError};
use link::{quic, tls};
use protocol::ALPN_NODE_ENROL;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::{InvalidToken, Token};
use protocol::wire::{EnrolReply, EnrolRequest};
use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
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
    /// Its name.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// The host.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is silent.
    #[error("the control node at {0} does not answer")]
    Silent(String),
    /// It refused.
    #[error("the control node refused: {0}")]
    Refused(Problem),
    /// It has another CA, or says something that makes no sense.
    #[error("the control node does not show the CA that is known")]
    WrongCa,
    /// The socket.
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// QUIC.
    #[error("QUIC cannot be configured")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// No attempt was made.
    #[error("cannot connect to the control node")]
    Connect(#[from] ConnectError),
    /// The connection.
    #[error("the connection to the control node ended")]
    Connection(#[from] ConnectionError),
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
        let code = u64::from(ProblemCode::Unauthorised.number());
        matches!(ended, ConnectionError::ApplicationClosed(c) if c.error_code.into_inner() == code)
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
    let (endpoint, connection) = connect(control, tls).await?;
    let shown = connection.peer_identity().and_then(|any| any.downcast().ok());
    let shown: Vec<CertificateDer<'static>> = shown.map(|boxed| *boxed).unwrap_or_default();
    let ca = tls::find_ca(&shown, token.ca_hash).ok_or(JoinError::WrongCa)?;
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send_last(&mut send, &request, []).await?;
    let reply: EnrolReply = frames::receive(&mut receive).await.map_err(|error| match error {
        LinkError::Refused(problem) => JoinError::Refused(problem),
        other => other.into(),
    })?;
    quic::close(&connection, ProblemCode::None, "");
    endpoint.wait_idle().await;
    files.keep(&chain_of(&reply.certificates), &ca)?;
    tracing::info!(node = reply.device_id, control, "joined");
    Ok(())
}

/// A connection, and the endpoint that carries it.
pub(super) async fn connect(
    control: &str,
    tls: rustls::ClientConfig,
) -> Result<(Endpoint, Connection), JoinError> {
    let (host, port) =
        split_address(control).ok_or_else(|| JoinError::Address(control.to_owned()))?;
    let failed = |source| JoinError::Resolve { host: host.to_owned(), source };
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    let nowhere = || failed(io::Error::other("it has no address"));
    let address = found.next().ok_or_else(nowhere)?;
    let local = quic::local_address_for(address);
    let endpoint = quic::endpoint(local).map_err(JoinError::Socket)?;
    let connection = endpoint.connect_with(quic::client(tls)?, address, host)?.await?;
    Ok((endpoint, connection))
}
