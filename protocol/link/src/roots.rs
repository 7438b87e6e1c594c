//! By which certificates servers are trusted that are nobody's of this fleet: a collector, a provider.

use rustls_pki_types::CertificateDer;
use std::io;
use std::path::{Path, PathBuf};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::{pki, tls};

/// Where systems keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is none in the file.
    #[error("{0} holds no certificates")]
    Empty(PathBuf),
    /// What is there are none.
    #[error("{path} holds what are no certificates")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pki::PkiError,
    },
    /// The system keeps none where it is known to.
    #[error("this system keeps no certificates that are found (hint: name a ca_file)")]
    Absent,
}

/// Those of a file of PEM, or the system's where it has no name.
///
/// # Errors
/// [`RootsError`].
pub fn roots(ca_file: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let path = match ca_file.as_os_str().is_empty() {
        false => ca_file,
        true => {
            let mut known = SYSTEM_ROOTS.iter().map(Path::new);
            known.find(|path| path.is_file()).ok_or(RootsError::Absent)?
        }
    };
    let pem = std::fs::read(path);
    let pem = pem.map_err(|source| RootsError::Read { path: path.to_owned(), source })?;
    let found = pki::chain_from_pem(&pem)
        .map_err(|source| RootsError::Certificates { path: path.to_owned(), source })?;
    match found.is_empty() {
        true => Err(RootsError::Empty(path.to_owned())),
        false => Ok(found),
    }
}

/// A client of HTTP that trusts these, or the system's where the file has no name.
///
/// # Errors
/// [`RootsError`].
pub fn http_client(ca_file: &Path) -> Result<TlsConfig, RootsError> {
    Ok(http_client_of(&roots(ca_file)?))
}

/// A client of HTTP that trusts these, and nobody else.
pub fn http_client_of(roots: &[CertificateDer<'_>]) -> TlsConfig {
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(tls::provider())
        .build()
}
