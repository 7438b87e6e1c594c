//! The server's certificate on its sockets, and a fresh one in its place while they are open.

use axum_server::tls_rustls::RustlsConfig;
use link::quic;
use link::tls::{self, Identity};
use protocol::carrier::alpn_over_tcp;
use quinn::Endpoint;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

use super::doors::AgentsConfig;
use super::{StartError, https};
use crate::join::Renewed;

/// What certificates of this server are used for.
#[derive(Clone)]
pub(super) struct Certificate {
    /// Whose certificates agents and nodes may show.
    pub(super) cas: Vec<CertificateDer<'static>>,
    /// What is spoken over QUIC.
    pub(super) protocols: Vec<&'static [u8]>,
}

impl Certificate {
    /// The QUIC side with this certificate.
    pub(super) fn quic(&self, identity: Identity) -> Result<quinn::ServerConfig, StartError> {
        Ok(quic::server(tls::server(identity, &self.cas, &self.protocols)?)?)
    }

    /// The side of agents over TCP with this certificate.
    pub(super) fn tcp(&self, identity: Identity) -> Result<rustls::ServerConfig, StartError> {
        let protocols: Vec<_> =
            self.protocols.iter().filter_map(|quic| alpn_over_tcp(quic)).collect();
        Ok(tls::server(identity, &self.cas, &protocols)?)
    }

    /// Puts a fresh certificate in place; connections that are open keep the old one.
    pub(super) fn replace_on(
        self,
        endpoint: Endpoint,
        https: RustlsConfig,
        agents: AgentsConfig,
    ) -> Renewed {
        Box::new(move |identity, cas| {
            let fresh = Self { cas, protocols: self.protocols.clone() };
            endpoint.set_server_config(Some(fresh.quic(identity.clone())?));
            agents.replace(fresh.tcp(identity.clone())?);
            https.reload_from_config(Arc::new(https::config(identity)?));
            Ok(())
        })
    }
}
