//! The collector: one POST for each batch, over a connection that is kept.

use crate::pki;
use crate::tls;
use protocol::problem::chain;
use protocol::trace::Exported;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{HeaderName, HeaderValue, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Service, TraceSettings};

/// How long one attempt may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of an answer.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// Headers from the file at most, and their bytes.
const HEADERS_MAX: usize = 32;
const HEADERS_MAX_BYTES: usize = 16 << 10;
/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why traces cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The endpoint is none.
    #[error(transparent)]
    Settings(#[from] super::Objection),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the headers' file is no header.
    #[error("line {line} of {path} is no header (hint: one a line, as \"Name: value\")")]
    Header {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// There are too many headers.
    #[error("{0} has more than 32 headers, or more than 16 KiB")]
    Headers(PathBuf),
    /// The certificates are none.
    #[error("{path} holds no certificates")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pki::PkiError,
    },
    /// The system keeps none where it is known to.
    #[error("this system keeps no certificates that are found (hint: name a ca_file in [traces])")]
    NoRoots,
    /// The thread.
    #[error("cannot start the thread that hands spans over")]
    Thread(#[source] io::Error),
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// They were taken, all but some.
    Taken(Exported),
    /// They may be taken later.
    TryAgain { wait: Option<Duration>, why: String },
    /// They are not wanted.
    Refused(String),
}

/// Whoever takes spans.
pub(super) struct Collector {
    http: ureq::Agent,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Collector {
    pub(super) fn new(settings: &TraceSettings, service: &Service) -> Result<Self, CollectorError> {
        settings.check()?;
        let url = settings.url().unwrap_or_default(); // it was checked
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(format!("{}/{}", service.name, service.version));
        let config = match settings.is_local() {
            true => config.proxy(None),
            false => config,
        };
        let config = match url.starts_with("https://") {
            true => config.tls_config(trust(&settings.ca_file)?),
            false => config,
        };
        let http = config.build().new_agent();
        Ok(Self { http, url, headers: read_headers(&settings.headers_file)? })
    }

    /// Hands over the body of an export.
    pub(super) fn take(&self, body: &[u8]) -> Attempt {
        let request = self.http.post(&self.url).header("content-type", "application/x-protobuf");
        let request = self
            .headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name.clone(), value.clone()));
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return Attempt::TryAgain { wait: None, why: chain(&error) },
        };
        let status = answer.status();
        if status.is_success() {
            let body = answer.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec();
            return Attempt::Taken(Exported::read(&body.unwrap_or_default()));
        }
        let why = format!("the collector answers {status}");
        if !may_be_taken_later(status) {
            return Attempt::Refused(why);
        }
        let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok());
        let wait = wait.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        Attempt::TryAgain { wait, why }
    }
}

/// The answers after which OTLP wants another attempt.
fn may_be_taken_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn trust(ca_file: &Path) -> Result<TlsConfig, CollectorError> {
    let path = match ca_file.as_os_str().is_empty() {
        false => ca_file,
        true => {
            let mut known = SYSTEM_ROOTS.iter().map(Path::new);
            known.find(|path| path.is_file()).ok_or(CollectorError::NoRoots)?
        }
    };
    let certificates = pki::chain_from_pem(&read(path)?)
        .map_err(|source| CollectorError::Certificates { path: path.to_owned(), source })?;
    let roots: Vec<_> =
        certificates.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(tls::provider())
        .build())
}

fn read(path: &Path) -> Result<Vec<u8>, CollectorError> {
    std::fs::read(path).map_err(|source| CollectorError::Read { path: path.to_owned(), source })
}

fn read_headers(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, CollectorError> {
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let headers = lines.map(|(line, text)| {
        header(text).ok_or_else(|| CollectorError::Header { path: path.to_owned(), line })
    });
    let headers: Vec<_> = headers.collect::<Result<_, _>>()?;
    if headers.len() > HEADERS_MAX || bytes.len() > HEADERS_MAX_BYTES {
        return Err(CollectorError::Headers(path.to_owned()));
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_a_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        std::fs::write(&path, "# of the team\nAuthorization: Bearer s3cret\n\nx-team:a:b\n")
            .unwrap();
        let headers = read_headers(&path).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!((headers[1].0.as_str(), headers[1].1.to_str().unwrap()), ("x-team", "a:b"));
        assert!(!format!("{headers:?}").contains("s3cret"));
        std::fs::write(&path, "Authorization: x\nno header").unwrap();
        let error = read_headers(&path).unwrap_err();
        assert!(matches!(error, CollectorError::Header { line: 2, .. }));
        std::fs::write(&path, "a: b\n".repeat(33)).unwrap();
        assert!(matches!(read_headers(&path), Err(CollectorError::Headers(_))));
        assert!(matches!(read_headers(folder.path()), Err(CollectorError::Read { .. })));
    }
}
