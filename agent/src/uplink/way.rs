//! The way to one cloud: where it is, and over what it was reached ([`link::dial`] carries out what
//! `protocol::carrier` decides). Whatever carries it, a connection is good only once the peer's
//! certificate was judged by the time.

use super::{Link, UplinkError, time};
use crate::clock::Clock;
use crate::config;
use crate::identity::{IdentityError, IdentityFiles};
use ::link::connection::Connection;
use ::link::dial::{Dialler, Target};
use ::link::{pki, tls};
use edge::pulse::PATIENCE_PULSES;
use protocol::carrier::{Carrier, Wanted};
use protocol::id::NodeId;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;

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
    fn target(&self, server_name: String) -> Target {
        Target { host: self.host.clone(), port: self.port, server_name }
    }

    pub(crate) async fn resolve(&self) -> Result<SocketAddr, UplinkError> {
        Ok(self.target(String::new()).resolve().await?)
    }
}

/// What is known of the way to one address. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) address: CloudAddress,
    dialler: Arc<Dialler>,
}

/// Whose connection it is.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// The fleet CA, and those whose place it is taking.
    pub(crate) cas: Vec<CertificateDer<'static>>,
    pub(crate) identity: tls::Identity,
}

impl Own {
    /// As it is on the disk now: it is renewed while the agent runs.
    pub(super) fn read(files: &IdentityFiles) -> Result<Self, IdentityError> {
        Ok(Self { cas: files.cas()?, identity: files.tls()? })
    }

    /// Who may speak for the control node: the current CA alone.
    fn trust(&self) -> tls::Trust {
        tls::Trust::Ca(self.cas.iter().take(1).cloned().collect())
    }
}

impl Way {
    /// Nothing is known yet.
    pub(crate) fn new(address: CloudAddress, policy: &config::Link) -> Self {
        Self::over(policy.carrier, address, policy)
    }

    /// The way over a carrier that somebody wants to know about.
    pub(crate) fn over(wanted: Wanted, address: CloudAddress, policy: &config::Link) -> Self {
        // What is no proxy was refused with the configuration.
        let dialler = Dialler::new(wanted, policy.proxy().ok().flatten());
        Self { address, dialler: Arc::new(dialler.paced(policy.pulse_max() * PATIENCE_PULSES)) }
    }

    /// A connection to a cloud of this fleet whose certificate is valid at the time that its CA tells.
    pub(crate) async fn connect(
        &self,
        trust: tls::Trust,
        identity: Option<tls::Identity>,
        alpn: &[u8],
        clock: &Clock,
    ) -> Result<Link, UplinkError> {
        let tls = tls::agent(trust.clone(), identity, alpn)?;
        let target = self.address.target(self.address.host.clone());
        let connection = self.dialler.dial(&target, &tls).await?;
        judged(connection, trust, clock).await
    }

    /// Another connection over the same carrier as the one that there is.
    pub(super) async fn connect_beside(
        &self,
        carrier: Carrier,
        own: Own,
        clock: &Clock,
    ) -> Result<Link, UplinkError> {
        let trust = own.trust();
        let tls = tls::agent(trust.clone(), Some(own.identity), protocol::ALPN_AGENT)?;
        let target = self.address.target(self.address.host.clone());
        let connection = self.dialler.dial_over(carrier, &target, &tls).await?;
        judged(connection, trust, clock).await
    }

    /// Waits until there is something better than this connection to a cloud, for ever if it is best.
    pub(super) async fn better(
        &self,
        connection: &Connection,
        own: impl Fn() -> Option<Own>,
        clock: &Clock,
    ) -> Link {
        let target = self.address.target(self.address.host.clone());
        loop {
            let tls = || own().and_then(|own| agent_tls(own.trust(), own));
            let better = self.dialler.better(connection, &target, tls).await;
            let Some(trust) = own().map(|own| own.trust()) else { continue };
            if let Ok(link) = judged(better, trust, clock).await {
                return link;
            }
        }
    }

    /// A connection to an inference node of this fleet. Its certificate bears the node's name, wherever
    /// it runs, and is judged by what this device knows of the time.
    pub(super) async fn connect_node(
        &self,
        node: &NodeId,
        own: Own,
        clock: &Clock,
    ) -> Result<Connection, UplinkError> {
        let trust = tls::Trust::Ca(own.cas);
        let tls = tls::agent(trust, Some(own.identity), protocol::ALPN_AGENT)?;
        let target = self.address.target(node.server_name());
        let connection = self.dialler.dial(&target, &tls).await?;
        time::judge(&connection, clock)?;
        Ok(connection)
    }

    /// Waits until there is something better than this connection to a node, for ever if it is best.
    pub(super) async fn better_node(
        &self,
        connection: &Connection,
        node: &NodeId,
        own: impl Fn() -> Option<Own>,
        clock: &Clock,
    ) -> Connection {
        let target = self.address.target(node.server_name());
        loop {
            let tls = || own().and_then(|own| agent_tls(tls::Trust::Ca(own.cas.clone()), own));
            let better = self.dialler.better(connection, &target, tls).await;
            if time::judge(&better, clock).is_ok() {
                return better;
            }
        }
    }

    /// Why a connection is over this carrier.
    pub(crate) fn why(&self, carrier: Carrier) -> &'static str {
        self.dialler.why(carrier)
    }
}

fn agent_tls(trust: tls::Trust, own: Own) -> Option<rustls::ClientConfig> {
    tls::agent(trust, Some(own.identity), protocol::ALPN_AGENT).ok()
}

async fn judged(
    connection: Connection,
    trust: tls::Trust,
    clock: &Clock,
) -> Result<Link, UplinkError> {
    let shown = connection.peer_certificates();
    let known = match trust {
        tls::Trust::Ca(cas) => cas,
        tls::Trust::Hash(hash) => tls::find_ca(&shown, hash).into_iter().collect(),
    };
    // The time is told by the CA that took the place of the one that is known, if one did.
    let ca = pki::followed(&known, &shown).into_iter().next().ok_or(UplinkError::NoCa)?;
    time::settle(&connection, &ca, clock).await?;
    Ok(Link { connection, ca })
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
