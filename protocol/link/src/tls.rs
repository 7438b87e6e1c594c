//! TLS 1.3 configurations, and the two ways to trust a server: by the fleet CA that is known, or,
//! on the very first contact, by the CA's hash alone.
//!
//! An agent's clock may be wrong, so its handshakes ([`agent`]) leave one question open: whether the
//! server's certificate is valid at this time. The agent hears the time from the fleet CA on the new
//! connection before anything else, and then judges.

/// The rest of a verifier that wraps another: signatures are judged as by that.
macro_rules! signatures_as_inner {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

mod peers;

pub use peers::peers;

use crate::pki::{self, DeviceCertificate};
use protocol::id::ContentHash;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key, certificate or protocol version that rustls refuses.
    #[error("TLS cannot be configured")]
    Rustls(#[from] rustls::Error),
    /// A CA that cannot verify clients.
    #[error("the fleet CA cannot verify clients")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The one cryptography provider of the project: ring.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate chain, leaf first, with its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKey,
}

/// A private key.
#[derive(Debug)]
pub enum PrivateKey {
    /// Here.
    Der(PrivateKeyDer<'static>),
    /// Elsewhere, where it signs what is asked.
    Held(Arc<dyn SigningKey>),
}

impl Clone for PrivateKey {
    fn clone(&self) -> Self {
        match self {
            Self::Der(key) => Self::Der(key.clone_key()),
            Self::Held(key) => Self::Held(key.clone()),
        }
    }
}

impl From<PrivateKeyDer<'static>> for PrivateKey {
    fn from(key: PrivateKeyDer<'static>) -> Self {
        Self::Der(key)
    }
}

impl From<PrivatePkcs8KeyDer<'static>> for PrivateKey {
    fn from(key: PrivatePkcs8KeyDer<'static>) -> Self {
        Self::Der(key.into())
    }
}

impl Identity {
    /// As rustls wants it.
    fn certified(self) -> Result<Arc<SingleCertAndKey>, rustls::Error> {
        let key = match self.key {
            PrivateKey::Der(key) => provider().key_provider.load_private_key(key)?,
            PrivateKey::Held(key) => key,
        };
        let certified = CertifiedKey::new(self.chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Arc::new(SingleCertAndKey::from(certified)))
            }
            Err(error) => Err(error),
        }
    }

    /// The same for a client, which shows its own certificate alone: whoever verifies clients has their CA, and keeps what
    /// was shown for as long as the connection lasts.
    fn certified_client(mut self) -> Result<Arc<SingleCertAndKey>, rustls::Error> {
        self.chain.truncate(1);
        self.certified()
    }
}

fn roots(cas: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone())?;
    }
    Ok(roots)
}

/// A client that trusts one CA and shows its own certificate where it has one.
///
/// # Errors
/// A CA, chain or key that rustls refuses.
pub fn client(
    ca: &CertificateDer<'static>,
    identity: Option<Identity>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(std::slice::from_ref(ca))?);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.certified_client()?),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// A client that knows only the hash of the CA: for the first contact. It sends nothing before the
/// server's chain leads to a certificate with that hash.
///
/// # Errors
/// Never in practice.
pub fn pinned_client(ca_hash: ContentHash, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // a stricter rule than the default: one CA, by hash
        .with_custom_certificate_verifier(Arc::new(PinnedCa { ca_hash, provider: provider() }))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// What an agent knows of the fleet CA.
#[derive(Debug, Clone)]
pub enum Trust {
    /// All of it; more than one while one takes another's place, the current one first.
    Ca(Vec<CertificateDer<'static>>),
    /// Its hash, from a token.
    Hash(ContentHash),
}

/// An agent's client: chain, name and signatures of the server are verified in the handshake, the
/// dates of its certificate are not. The caller must judge them before it sends anything that is
/// worth something.
///
/// # Errors
/// A CA, chain or key that rustls refuses.
pub fn agent(
    trust: Trust,
    identity: Option<Identity>,
    alpn: &[u8],
) -> Result<ClientConfig, TlsError> {
    let known: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Ca(cas) => {
            WebPkiServerVerifier::builder_with_provider(roots(&cas)?.into(), provider())
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?
        }
        Trust::Hash(ca_hash) => Arc::new(PinnedCa { ca_hash, provider: provider() }),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // the caller judges what is left out here
        .with_custom_certificate_verifier(Arc::new(DatesLater(known)));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity.certified_client()?),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// A server that asks for a client certificate of the fleet CA. Two things are left to the caller
/// to refuse after the handshake, because they depend on what the connection is for: no certificate
/// at all (enrolment has none yet), and one whose life ended less than [`RENEWAL_GRACE`] ago, or begins
/// in less than that (renewal takes both). Without `client_cas` it never asks; there is more than one while
/// one takes another's place.
///
/// # Errors
/// A chain, key or CA that rustls refuses.
pub fn server(
    identity: Identity,
    client_cas: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match client_cas {
        [] => builder.with_no_client_auth(),
        cas => {
            let roots = Arc::new(roots(cas)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(Arc::new(WithGrace(verifier)))
        }
    };
    let mut config = builder.with_cert_resolver(identity.certified()?);
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    config.max_early_data_size = 0; // 0-RTT off: requests must not be replayable
    if !client_cas.is_empty() {
        // Devices and nodes shake hands anew for each connection: a ticket would be made, sent and kept for nobody.
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The certificate with this hash, among those that a server showed.
pub fn find_ca(
    chain: &[CertificateDer<'_>],
    ca_hash: ContentHash,
) -> Option<CertificateDer<'static>> {
    chain.iter().find(|c| ContentHash::of(c) == ca_hash).map(|c| c.clone().into_owned())
}

/// How long after its end a certificate can still be renewed: a device that was off, or offline,
/// for that long is not locked out. As long before its beginning: this CA made it, so its own clock
/// stood ahead then, and that is not the device's fault.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);

/// The ordinary rules, but for a certificate whose end or beginning lies within [`RENEWAL_GRACE`].
#[derive(Debug)]
struct WithGrace(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for WithGrace {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let verify = |at| self.0.verify_client_cert(end_entity, intermediates, at);
        match verify(now) {
            Err(InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => verify(last_valid_second(end_entity, now)?),
            Err(InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => verify(first_valid_second(end_entity, now)?),
            other => other,
        }
    }

    signatures_as_inner!();
}

/// The end of a certificate, if it lies within the grace before `now`.
fn last_valid_second(cert: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, rustls::Error> {
    let expired = || rustls::Error::InvalidCertificate(CertificateError::Expired);
    let cert = DeviceCertificate::parse(cert).map_err(|_| expired())?;
    let end = u64::try_from(cert.not_after_s).map_err(|_| expired())?;
    if now.as_secs().saturating_sub(end) > RENEWAL_GRACE.as_secs() {
        return Err(expired());
    }
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(end)))
}

/// The beginning of a certificate, if it lies within the grace after `now`.
fn first_valid_second(cert: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, rustls::Error> {
    let early = || rustls::Error::InvalidCertificate(CertificateError::NotValidYet);
    let begin = beginning(cert)?;
    if begin.as_secs().saturating_sub(now.as_secs()) > RENEWAL_GRACE.as_secs() {
        return Err(early());
    }
    Ok(begin)
}

fn beginning(cert: &CertificateDer<'_>) -> Result<UnixTime, rustls::Error> {
    let damaged = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let (not_before_s, _) = pki::validity_s(cert).map_err(|_| damaged())?;
    let begin = u64::try_from(not_before_s).map_err(|_| damaged())?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(begin)))
}

/// Another verifier's rules, at a time at which the server's certificate was valid.
#[derive(Debug)]
struct DatesLater(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for DatesLater {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime, // the system's clock, which may be years off
    ) -> Result<ServerCertVerified, rustls::Error> {
        let then = beginning(end_entity)?;
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, then)
    }

    signatures_as_inner!();
}

/// Accepts a server whose chain leads to the CA with the given hash, by the ordinary rules.
#[derive(Debug)]
struct PinnedCa {
    ca_hash: ContentHash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = find_ca(intermediates, self.ca_hash).ok_or(CertificateError::UnknownIssuer)?;
        let roots = Arc::new(roots(&[ca])?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
