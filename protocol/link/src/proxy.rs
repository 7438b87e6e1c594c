//! HTTP proxies on the way to the cloud: CONNECT (RFC 9110 section 9.3.6), then TLS runs through.
//!
//! The proxy learns where the cloud is, and nothing else. It is asked to resolve the name, which often
//! nobody else behind it can.

use base64::Engine;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The head of the proxy's answer.
pub const HEAD_MAX_BYTES: usize = 8 << 10;
/// A user's name and password.
const CREDENTIALS_MAX_BYTES: usize = 4 << 10;
const DEFAULT_PORT: u16 = 3128;

/// Why a proxy does not let through.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// What is configured is no proxy.
    #[error("{0:?} is not http://HOST:PORT")]
    Address(String),
    /// The file with its credentials.
    #[error("cannot read the proxy's credentials in {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others could read the file.
    #[error("{} holds the proxy's password and must be for its owner only (mode 0600)", .0.display())]
    Mode(PathBuf),
    /// What the file holds.
    #[error("{} must hold one line: USER:PASSWORD", .0.display())]
    Credentials(PathBuf),
    /// It cannot be reached.
    #[error("the proxy {address} cannot be reached")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It wants to know who asks.
    #[error("the proxy wants other credentials (407)")]
    Unauthorised,
    /// It refuses.
    #[error("the proxy refuses ({0})")]
    Refused(String),
    /// It is no HTTP proxy.
    #[error("what answers at the proxy's address is no HTTP proxy")]
    NoProxy,
}

impl ProxyError {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unauthorised => "[link] proxy_credentials_file names a file with USER:PASSWORD",
            Self::Refused(_) => "the proxy must allow CONNECT to the cloud's host and port",
            Self::Mode(_) => "chmod 600 FILE, and let it belong to the agent's user",
            Self::Unreachable { .. } | Self::NoProxy => "is [link] proxy right?",
            Self::Address(_) | Self::Read { .. } | Self::Credentials(_) => "",
        }
    }
}

/// A proxy, and where its credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<PathBuf>,
}

impl Proxy {
    /// The proxy at `http://HOST:PORT`, also without the scheme; with a file that holds `USER:PASSWORD`,
    /// if it wants that. The file is read for each connection, so that a new password needs no restart.
    ///
    /// # Errors
    /// [`ProxyError::Address`].
    pub fn parse(text: &str, credentials: Option<PathBuf>) -> Result<Self, ProxyError> {
        let invalid = || ProxyError::Address(text.to_owned());
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if rest.contains(['/', '@']) {
            return Err(invalid()); // another scheme, or a password where everybody sees it
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
            None => (rest, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), port, credentials })
    }

    /// A TCP connection through the proxy to `host:port`.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let authorization = self.credentials.as_deref().map(authorization).transpose()?;
        let unreachable = |source| ProxyError::Unreachable { address: self.to_string(), source };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let mut stream = connecting.await.map_err(unreachable)?;
        let target =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = authorization {
            ask += &format!("Proxy-Authorization: Basic {authorization}\r\n");
        }
        ask += "\r\n";
        stream.write_all(ask.as_bytes()).await.map_err(unreachable)?;
        let head = head(&mut stream).await?;
        judge(&head)?;
        Ok(stream)
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Byte by byte, so that nothing behind it is taken away: it is short, and read once for a connection.
async fn head(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX_BYTES {
            return Err(ProxyError::NoProxy);
        }
        head.push(stream.read_u8().await.map_err(|_| ProxyError::NoProxy)?);
    }
    Ok(head)
}

fn judge(head: &[u8]) -> Result<(), ProxyError> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    if !words.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(ProxyError::NoProxy);
    }
    let status: u16 = words.next().and_then(|s| s.parse().ok()).ok_or(ProxyError::NoProxy)?;
    match status {
        200..300 => Ok(()),
        407 => Err(ProxyError::Unauthorised),
        _ => Err(ProxyError::Refused(status.to_string())),
    }
}

fn authorization(path: &Path) -> Result<String, ProxyError> {
    let failed = |source| ProxyError::Read { path: path.to_owned(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(ProxyError::Mode(path.to_owned()));
        }
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.len() > CREDENTIALS_MAX_BYTES || !line.contains(':') || line.contains('\n') {
        return Err(ProxyError::Credentials(path.to_owned()));
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("http://proxy.example:8080", "proxy.example:8080"),
            ("http://proxy.example:8080/", "proxy.example:8080"),
            ("proxy.example", "proxy.example:3128"),
        ] {
            assert_eq!(Proxy::parse(text, None).unwrap().to_string(), expected);
        }
        for bad in ["https://proxy:1", "http://user:password@proxy:1", "", ":1", "proxy:http"] {
            assert!(Proxy::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers() {
        assert!(judge(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok());
        assert!(judge(b"HTTP/1.0 200\r\n\r\n").is_ok());
        let refused = |head: &[u8]| judge(head).unwrap_err();
        assert!(matches!(refused(b"HTTP/1.1 407 No\r\n\r\n"), ProxyError::Unauthorised));
        assert!(matches!(refused(b"HTTP/1.1 403 No\r\n\r\n"), ProxyError::Refused(_)));
        for nonsense in [&b"SSH-2.0\r\n\r\n"[..], b"\r\n\r\n", b"HTTP/1.1 okay\r\n\r\n"] {
            assert!(matches!(refused(nonsense), ProxyError::NoProxy));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_password_that_others_can_read_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        std::fs::write(&path, "user:pass word\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(matches!(authorization(&path), Err(ProxyError::Mode(_))));
        mode(0o600);
        assert_eq!(authorization(&path).unwrap(), "dXNlcjpwYXNzIHdvcmQ=");
        std::fs::write(&path, "no colon\n").unwrap();
        assert!(matches!(authorization(&path), Err(ProxyError::Credentials(_))));
    }
}
