//! The HTTPS listener.

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use link::tls::{self, Identity};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

use super::StartError;
use super::doors::{AgentsConfig, Doors};
use super::limited::Limited;
use crate::state::Cloud;

/// The running listener.
pub(super) struct Https {
    handle: Handle<SocketAddr>,
    tls: RustlsConfig,
    task: JoinHandle<io::Result<()>>,
}

impl Https {
    /// Serves the routes on a bound socket, and lets agents that come there in. `head` is how
    /// long it may take from a connection's opening, or the end of a request, to the next one's head.
    pub(super) fn start(
        listener: TcpListener,
        identity: Identity,
        routes: Router,
        (cloud, agents): (Arc<Cloud>, AgentsConfig),
        head: Duration,
    ) -> Result<Self, StartError> {
        let tls = RustlsConfig::from_config(Arc::new(config(identity)?));
        let mut server = axum_server::from_tcp(listener).map_err(StartError::Listener)?;
        let http = server.http_builder();
        oip::listen::bound(http);
        http.http1().header_read_timeout(head);
        http.http2().keep_alive_interval(head);
        let handle = Handle::new();
        let server = server.handle(handle.clone()).first_request_timeout(head);
        let places = cloud.limits.https_connections.clone();
        let doors = Doors { cloud, https: tls.clone(), agents };
        let server = server.acceptor(Limited::new(doors, places));
        let task =
            tokio::spawn(server.serve(routes.into_make_service_with_connect_info::<SocketAddr>()));
        Ok(Self { handle, tls, task })
    }

    /// What new connections are served with, to be replaced by another certificate.
    pub(super) fn tls(&self) -> RustlsConfig {
        self.tls.clone()
    }

    /// Takes no more connections, and ends those that are open within `grace`.
    pub(super) fn begin_stop(&self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
    }

    /// Waits for the end.
    pub(super) async fn stopped(self) {
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "the HTTPS listener ended badly");
        }
    }
}

/// Client certificates are not asked for here.
pub(super) fn config(identity: Identity) -> Result<rustls::ServerConfig, tls::TlsError> {
    tls::server(identity, &[], &[b"h2", b"http/1.1"])
}
