//! The first contact with a cloud of which only the CA's hash is known: a TLS handshake that learns
//! the CA's certificate, and sends nothing to anybody else.

use protocol::id::ContentHash;
use rustls::ClientConnection;
use rustls::{CertificateError, Error as TlsError};
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crate::errors::hinted;

/// For each address that the name stands for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For each step of the handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a cloud listens unless told otherwise.
const DEFAULT_PORT: u16 = 8443;

/// A cloud's address as the operator gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The name or address, without brackets.
    pub(crate) host: String,
    /// The TCP port.
    pub(crate) port: u16,
}

impl Address {
    /// Reads `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let invalid = || hinted(format!("{text:?} is no address"), "write HOST:PORT");
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| invalid())?)
            }
            _ => (text, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(host.as_str()).map_err(|_| invalid())?;
        Ok(Self { host, port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The certificate of the CA with this hash, or of the one that took its place, once the server proved to
/// be its.
pub(crate) fn learn_ca(
    address: &Address,
    ca_hash: ContentHash,
) -> anyhow::Result<CertificateDer<'static>> {
    let config = link::tls::pinned_client(ca_hash, b"http/1.1")?;
    let name = ServerName::try_from(address.host.clone())?;
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    let mut socket = connect(address)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).map_err(|error| explain(&error, address))?;
    }
    let chain = tls.peer_certificates().unwrap_or_default();
    let absent = || hinted(format!("{address} did not show its CA"), "");
    let named = link::tls::find_ca(chain, ca_hash);
    link::pki::followed(named.as_slice(), chain).into_iter().next().ok_or_else(absent)
}

fn connect(address: &Address) -> anyhow::Result<TcpStream> {
    let unreachable = |error: &std::io::Error| {
        let hint = "is outrigger-cloud running there, and is the port open for TCP?";
        hinted(format!("cannot reach {address}: {error}"), hint)
    };
    let resolved = (address.host.as_str(), address.port).to_socket_addrs();
    let mut last = std::io::Error::other("the name stands for no address");
    for remote in resolved.map_err(|error| unreachable(&error))? {
        match TcpStream::connect_timeout(&remote, CONNECT_TIMEOUT) {
            Ok(socket) => {
                socket.set_read_timeout(Some(STEP_TIMEOUT))?;
                socket.set_write_timeout(Some(STEP_TIMEOUT))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(&last))
}

fn explain(error: &std::io::Error, address: &Address) -> anyhow::Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => hinted(
            format!("the server at {address} is not the cloud that is meant: its CA is another"),
            "is the address right? If the cloud was set up anew, use its new admin.key, or the hash of its new CA",
        ),
        Some(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => hinted(
            format!("the cloud's certificate does not hold the name {}", address.host),
            format!("start it with: outrigger-cloud serve --name {}", address.host),
        ),
        _ => hinted(
            format!("{address} does not answer as a cloud: {error}"),
            "is the address right? outrigger-cloud listens on port 8443 unless told otherwise",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str| Address::parse(text).map(|a| a.to_string()).unwrap_or_default();
        assert_eq!(check("cloud.example"), "cloud.example:8443");
        assert_eq!(check("cloud.example:1"), "cloud.example:1");
        assert_eq!(check("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(check("[::1]:80"), "[::1]:80");
        assert_eq!(check("::1"), "[::1]:8443");
        for bad in ["", ":", "a b:1", "host:port", "host:99999", "https://host"] {
            assert_eq!(check(bad), "", "{bad}");
        }
    }
}
