//! The fleet CA: made on the first start, it signs the server's certificate at each start and a
//! device's certificate at each enrolment.

mod rotation;

pub use rotation::{OVERLAP, Previous, RotationError, is_prepared, retire, rotate};

use bytes::Bytes;
use link::durable::{self, Access};
use link::pki::{DeviceCertificate, PkiError, chain_from_pem, chain_to_pem, is_issued_by};
use link::tls::Identity;
use protocol::id::{ContentHash, DeviceId, NodeId};
use protocol::time::{self, Nonce};
use protocol::wire;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SigningKey as _, SubjectPublicKeyInfo,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, ServerName,
};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of the CA: ten years.
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Life of the server's certificate, which is made anew at each start.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Life of a device's certificate.
pub const DEVICE_LIFE: Duration = DAY;
/// Life of an inference node's certificate: for as long can its control node be away, and a third more
/// or less, as it is renewed at two thirds.
const NODE_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How far a device's clock may be behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Why the CA cannot be used, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its files cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its files hold no key or certificate.
    #[error("the files of the fleet CA are damaged")]
    Damaged(#[from] PkiError),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// This is an inference node.
    #[error("the fleet CA's key is on the control node, and nowhere else")]
    Elsewhere,
    /// A name that cannot stand in a certificate.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
}

/// A device's signing request, whose signature proves that it holds the key.
#[derive(Debug)]
pub struct SigningRequest {
    csr: CertificateSigningRequestParams,
    /// SHA-256 of the key's SubjectPublicKeyInfo: what the device is known by.
    pub key: ContentHash,
}

impl SigningRequest {
    /// Reads a request (PKCS#10, DER) and verifies its signature.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        let der = CertificateSigningRequestDer::from(der);
        let csr = CertificateSigningRequestParams::from_der(&der)?;
        let key = ContentHash::of(&csr.public_key.subject_public_key_info());
        Ok(Self { csr, key })
    }
}

/// The fleet CA; on an inference node, its certificate alone.
pub struct FleetCa {
    certificate: CertificateDer<'static>,
    issuer: Option<Issuer<'static, KeyPair>>,
    previous: Option<Previous>,
    /// Other CAs whose certificates devices and nodes may show.
    older: Vec<CertificateDer<'static>>,
}

/// SHA-256 of the CA's certificate in a folder that a server may be using.
///
/// # Errors
/// [`CaError`].
pub fn hash_in(folder: &Path) -> Result<ContentHash, CaError> {
    let absent = || CaError::Damaged(PkiError::Certificate);
    let pem = read(&folder.join("ca.pem"))?.ok_or_else(absent)?;
    let chain = chain_from_pem(pem.as_bytes())?;
    chain.first().map(|ca| ContentHash::of(ca)).ok_or_else(absent)
}

impl FleetCa {
    /// Reads the CA from its folder, or makes it there; another one takes its place where that was
    /// prepared.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        rotation::take_over(folder)?;
        let key = open_key(&folder.join("ca.key"))?;
        let certificate = open_certificate(&folder.join("ca.pem"), &key)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let previous = rotation::previous(folder)?;
        let older = previous.iter().map(|previous| previous.certificate.clone()).collect();
        Ok(Self { certificate, issuer: Some(issuer), previous, older })
    }

    /// What an inference node knows of it: it can sign nothing. `older` are CAs whose place it is taking.
    pub fn elsewhere(
        certificate: CertificateDer<'static>,
        older: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { certificate, issuer: None, previous: None, older }
    }

    /// The CA before the one in a folder that a server may be using, while it is believed.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn previous_in(folder: &Path) -> Result<Option<Previous>, CaError> {
        rotation::previous(folder)
    }

    /// The CA before this one, while it is believed.
    pub fn previous(&self) -> Option<&Previous> {
        self.previous.as_ref()
    }

    /// Whose certificates devices and nodes may show.
    pub fn believed(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.older).cloned().collect()
    }

    /// SHA-256 of the CA that has signed this certificate, if it is believed.
    pub fn issuer_of(&self, leaf: &[u8]) -> Option<ContentHash> {
        let mut believed = std::iter::once(&self.certificate).chain(&self.older);
        believed.find(|ca| is_issued_by(leaf, ca)).map(|ca| ContentHash::of(ca))
    }

    /// A server's chain: its certificate, this CA, and how one comes from the CA before to this one.
    pub fn chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let previous = self.previous.iter().flat_map(|p| [p.cross.clone(), p.certificate.clone()]);
        [leaf, self.certificate.clone()].into_iter().chain(previous).collect()
    }

    fn issuer(&self) -> Result<&Issuer<'static, KeyPair>, CaError> {
        self.issuer.as_ref().ok_or(CaError::Elsewhere)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of its certificate: how tokens name it.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.certificate)
    }

    /// A secret that stays the same over restarts, for QUIC's stateless resets: derived from the
    /// CA's key, so that there is no second secret to keep.
    ///
    /// # Errors
    /// [`CaError::Elsewhere`].
    pub fn reset_key(&self) -> Result<[u8; 32], CaError> {
        Ok(reset_key(&self.issuer()?.key().serialize_der()))
    }

    /// A fresh certificate for the server under these host names and addresses. The CA's own
    /// certificate follows it, so that clients can find it by its hash.
    ///
    /// # Errors
    /// [`CaError::Name`] or [`CaError::Make`].
    pub fn server_identity(&self, names: &[String]) -> Result<Identity, CaError> {
        if let Some(bad) = names.iter().find(|n| ServerName::try_from(n.as_str()).is_err()) {
            return Err(CaError::Name(bad.clone()));
        }
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "outrigger-cloud");
        limit(&mut params, SERVER_LIFE, ExtendedKeyUsagePurpose::ServerAuth);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let leaf = params.signed_by(&key, self.issuer()?)?;
        Ok(Identity {
            chain: self.chain(leaf.der().clone()),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A certificate for the device's key. Only the key is taken from the request.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn device_certificate(
        &self,
        device: &DeviceId,
        request: &SigningRequest,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.certify(device, &request.csr.public_key)
    }

    /// A fresh certificate for a device whose certificate was verified: same name, same key.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn renewed_certificate(
        &self,
        old: &DeviceCertificate,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.certify(&old.device, &SubjectPublicKeyInfo::from_der(&old.public_key)?)
    }

    /// The answer to a device that asked for the time with this nonce.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn sign_time(&self, nonce: &Nonce, unix_ms: u64) -> Result<wire::SignedTime, CaError> {
        let signature = self.issuer()?.key().sign(&time::signed_text(nonce, unix_ms))?;
        let nonce = Bytes::copy_from_slice(nonce);
        Ok(wire::SignedTime { unix_ms, nonce, signature: signature.into() })
    }

    fn certify(
        &self,
        device: &DeviceId,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        limit(&mut params, DEVICE_LIFE, ExtendedKeyUsagePurpose::ClientAuth);
        Ok(params.signed_by(key, self.issuer()?)?.der().clone())
    }

    /// A certificate for the key of an inference node, under its own name and these others. Only the
    /// key is taken from the request.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn node_certificate(
        &self,
        node: &NodeId,
        names: &[String],
        request: &SigningRequest,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.certify_node(node, names, &request.csr.public_key)
    }

    /// A fresh certificate for a node whose certificate was verified.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn renewed_node_certificate(
        &self,
        node: &NodeId,
        names: &[String],
        old: &DeviceCertificate,
    ) -> Result<CertificateDer<'static>, CaError> {
        self.certify_node(node, names, &SubjectPublicKeyInfo::from_der(&old.public_key)?)
    }

    fn certify_node(
        &self,
        node: &NodeId,
        names: &[String],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut all = vec![node.server_name()];
        all.extend(names.iter().cloned());
        let mut params = CertificateParams::new(all)?;
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        limit(&mut params, NODE_LIFE, ExtendedKeyUsagePurpose::ServerAuth);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        Ok(params.signed_by(key, self.issuer()?)?.der().clone())
    }
}

/// A secret for QUIC's stateless resets, from a key that is kept anyway.
pub(crate) fn reset_key(key: &[u8]) -> [u8; 32] {
    use ring::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, b"outrigger stateless reset").as_ref());
    out
}

fn limit(params: &mut CertificateParams, life: Duration, usage: ExtendedKeyUsagePurpose) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_TOLERANCE).into();
    params.not_after = (now + life).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
}

/// The file's text, or `None` where there is no file.
fn read(path: &Path) -> Result<Option<String>, CaError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::Io { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), CaError> {
    durable::write(path, text.as_bytes(), Access::Private)
        .map_err(|source| CaError::Io { path: path.to_owned(), source })
}

fn open_key(path: &Path) -> Result<KeyPair, CaError> {
    if let Some(pem) = read(path)? {
        return Ok(KeyPair::from_pem(&pem)?);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    write(path, &key.serialize_pem())?;
    Ok(key)
}

fn open_certificate(path: &Path, key: &KeyPair) -> Result<CertificateDer<'static>, CaError> {
    if let Some(pem) = read(path)? {
        let chain = chain_from_pem(pem.as_bytes())?;
        return chain.into_iter().next().ok_or(CaError::Damaged(PkiError::Certificate));
    }
    let (_, certificate) = fresh_certificate(key)?;
    write(path, &chain_to_pem(std::slice::from_ref(&certificate)))?;
    Ok(certificate)
}

/// A certificate of a CA with this key, and what it was made from.
fn fresh_certificate(
    key: &KeyPair,
) -> Result<(CertificateParams, CertificateDer<'static>), rcgen::Error> {
    let mut params = CertificateParams::default();
    let name = format!("Outrigger fleet CA {}", hex::encode(link::entropy::<4>()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_TOLERANCE).into();
    params.not_after = (now + CA_LIFE).into();
    let certificate = params.self_signed(key)?.der().clone();
    Ok((params, certificate))
}

#[cfg(test)]
mod tests;
