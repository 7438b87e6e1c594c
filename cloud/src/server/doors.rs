//! One TCP port for two kinds of callers, told apart by the protocol that they offer in their first
//! message: HTTPS, which asks for no certificate; and agents or nodes that get no UDP through, which must
//! show one, as over QUIC.

use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsConfig;
use protocol::carrier::alpn_from_tcp;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

use crate::agents;
use crate::state::Cloud;

/// From a connection's opening to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The TLS configuration for agents, to be replaced by another certificate.
#[derive(Debug, Clone)]
pub(super) struct AgentsConfig(Arc<RwLock<Arc<ServerConfig>>>);

impl AgentsConfig {
    pub(super) fn new(config: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub(super) fn replace(&self, config: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    fn get(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Shakes hands with whoever comes.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) cloud: Arc<Cloud>,
    pub(super) https: RustlsConfig,
    pub(super) agents: AgentsConfig,
}

impl Doors {
    /// The stream of a caller over HTTPS; agents are taken over, and are none of the caller's concern.
    async fn open(self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let address = stream.peer_addr()?;
        // Without delay: what HTTP/2 says of its windows would else hold up the answer behind it,
        // until the peer acknowledges, which it puts off for 40 ms.
        stream.set_nodelay(true)?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let is_agent = {
            let hello = start.client_hello();
            let mut offered = hello.alpn().into_iter().flatten();
            offered.any(|protocol| alpn_from_tcp(protocol).is_some())
        };
        if !is_agent {
            return start.into_stream(self.https.get_inner()).await;
        }
        let began = Instant::now();
        let stream = start.into_stream(self.agents.get()).await.inspect_err(|error| {
            self.cloud.events.handshake_failed(address, error);
        })?;
        agents::tcp::take(&self.cloud, stream, address, began.elapsed())?;
        Err(io::Error::other("an agent, served elsewhere"))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Doors {
    type Stream = TlsStream<TcpStream>;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let opening = self.clone().open(stream);
        Box::pin(async move {
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await??;
            Ok((stream, service))
        })
    }
}
