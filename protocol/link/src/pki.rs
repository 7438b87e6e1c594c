//! Keys and certificates: what a device makes for itself, and what is read from a peer's.

use protocol::id::{ContentHash, DeviceId};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Mutex, PoisonError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key could not be made, or a request not be signed.
    #[error("cannot make a key or a certificate")]
    Make(#[from] rcgen::Error),
    /// A key that is held elsewhere did not sign.
    #[error("the key did not sign")]
    Elsewhere(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not PEM of the expected kind.
    #[error("not a {0} in PEM form")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    /// Not an X.509 certificate.
    #[error("not an X.509 certificate")]
    Certificate,
    /// A key of a kind that signs nothing here: neither ECDSA on P-256 or P-384, nor Ed25519.
    #[error("the certificate's key is of a kind that is not used here")]
    Algorithm,
    /// A signature by another key, or over another text.
    #[error("the signature is not by that certificate's key")]
    Signature,
    /// A certificate whose subject is no device.
    #[error("the certificate's subject names no device")]
    NoDevice,
}

/// The private key of a device, made on it (ECDSA P-256, which TPMs hold too).
pub struct DeviceKey(KeyPair);

impl DeviceKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn generate() -> Result<Self, PkiError> {
        Ok(Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    /// A key from its file.
    ///
    /// # Errors
    /// [`PkiError::Make`] for anything but a PKCS#8 key in PEM form.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Ok(Self(KeyPair::from_pem(pem)?))
    }

    /// The key as PKCS#8 PEM, for a file with mode 0600.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A signing request (PKCS#10, DER) for this key.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn signing_request(&self) -> Result<Vec<u8>, PkiError> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.der().to_vec())
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what the device is known by.
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(&self.0.subject_public_key_info())
    }
}

/// What precedes a point of P-256 in a SubjectPublicKeyInfo (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The SubjectPublicKeyInfo of an uncompressed point of P-256.
pub fn p256_public_key(point: &[u8]) -> Vec<u8> {
    [&P256_PREFIX[..], point].concat()
}

/// Signs a text (ECDSA, SHA-256, ASN.1), somewhere else than here.
pub type SignElsewhere<'a> =
    dyn Fn(&[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// A signing request (PKCS#10, DER) for a key of P-256 that is held elsewhere, by its uncompressed point.
///
/// # Errors
/// [`PkiError::Elsewhere`] with what kept it from signing, or [`PkiError::Make`].
pub fn signing_request_by(point: &[u8], sign: &SignElsewhere<'_>) -> Result<Vec<u8>, PkiError> {
    let key = HeldElsewhere { point, sign, failure: Mutex::default() };
    let made = CertificateParams::default().serialize_request(&key);
    let failure = key.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure {
        Some(error) => Err(PkiError::Elsewhere(error)),
        None => Ok(made?.der().to_vec()),
    }
}

struct HeldElsewhere<'a> {
    point: &'a [u8],
    sign: &'a SignElsewhere<'a>,
    failure: Mutex<Option<Box<dyn std::error::Error + Send + Sync>>>,
}

impl PublicKeyData for HeldElsewhere<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for HeldElsewhere<'_> {
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        (self.sign)(text).map_err(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            rcgen::Error::RemoteKeyError
        })
    }
}

/// Who the holder of a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCertificate {
    /// The device that the subject names.
    pub device: DeviceId,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// The SubjectPublicKeyInfo itself, DER.
    pub public_key: Vec<u8>,
    /// Unix seconds from which on it is valid.
    pub not_before_s: i64,
    /// Unix seconds after which it is no longer valid.
    pub not_after_s: i64,
}

impl DeviceCertificate {
    /// Reads a device's certificate. The chain must have been verified before.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] or [`PkiError::NoDevice`].
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| PkiError::Certificate)?;
        let name = cert.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
        let device = name.and_then(|n| n.parse().ok()).ok_or(PkiError::NoDevice)?;
        let public_key = cert.public_key().raw.to_vec();
        let key = ContentHash::of(&public_key);
        let (from, to) = (cert.validity().not_before, cert.validity().not_after);
        Ok(Self {
            device,
            key,
            public_key,
            not_before_s: from.timestamp(),
            not_after_s: to.timestamp(),
        })
    }
}

/// When a certificate is valid, whoever it is for: Unix seconds from and until.
///
/// # Errors
/// [`PkiError::Certificate`].
pub fn validity_s(der: &[u8]) -> Result<(i64, i64), PkiError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| PkiError::Certificate)?;
    Ok((cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()))
}

/// Verifies that the holder of a certificate's key signed `text`.
///
/// # Errors
/// [`PkiError::Certificate`], [`PkiError::Algorithm`] or [`PkiError::Signature`].
pub fn verify_signature(der: &[u8], text: &[u8], signature: &[u8]) -> Result<(), PkiError> {
    use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| PkiError::Certificate)?;
    let key = &*cert.public_key().subject_public_key.data;
    let algorithm: &dyn VerificationAlgorithm =
        match (cert.public_key().algorithm.algorithm.to_id_string().as_str(), key.len()) {
            ("1.2.840.10045.2.1", 65) => &signature::ECDSA_P256_SHA256_ASN1,
            ("1.2.840.10045.2.1", 97) => &signature::ECDSA_P384_SHA384_ASN1,
            ("1.3.101.112", _) => &signature::ED25519,
            _ => return Err(PkiError::Algorithm),
        };
    let key = UnparsedPublicKey::new(algorithm, key);
    key.verify(text, signature).map_err(|_| PkiError::Signature)
}

/// Whether a certificate was signed by this CA's key, whatever its dates.
pub fn is_issued_by(der: &[u8], ca: &CertificateDer<'_>) -> bool {
    let Ok((_, cert)) = X509Certificate::from_der(der) else { return false };
    verify_signature(ca, cert.tbs_certificate.as_ref(), &cert.signature_value.data).is_ok()
}

/// How many exchanges of the fleet CA one chain may prove.
const SUCCESSORS_MAX: usize = 4;

/// The CAs that whoever knew `known` trusts after it was shown a chain by a server whose handshake was
/// verified; the current one first. `known` is the same list from before.
///
/// A CA that takes another's place shows itself, and a certificate for its key that the old one has signed.
/// The old one is trusted for as long as the server shows it: until its place is taken everywhere.
pub fn followed(
    known: &[CertificateDer<'static>],
    shown: &[CertificateDer<'_>],
) -> Vec<CertificateDer<'static>> {
    let Some(mut current) = known.first().cloned() else { return Vec::new() };
    let mut passed = Vec::new();
    while passed.len() < SUCCESSORS_MAX
        && let Some(next) = successor(&current, shown).filter(|next| !passed.contains(next))
    {
        passed.push(std::mem::replace(&mut current, next));
    }
    let older = passed.into_iter().rev().chain(known.iter().skip(1).cloned());
    std::iter::once(current).chain(older.filter(|ca| shown.contains(ca))).collect()
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().map(|(_, cert)| cert)
}

/// The CA that this one has signed a certificate for.
fn successor(
    ca: &CertificateDer<'_>,
    shown: &[CertificateDer<'_>],
) -> Option<CertificateDer<'static>> {
    let old = parse(ca)?;
    let crossed = |root: &&CertificateDer<'_>| {
        let Some(new) = parse(root).filter(|new| new.is_ca() && is_issued_by(root, root)) else {
            return false;
        };
        shown.iter().any(|der| {
            parse(der).is_some_and(|cross| {
                cross.is_ca()
                    && cross.subject().as_raw() == new.subject().as_raw()
                    && cross.public_key().raw == new.public_key().raw
                    && cross.issuer().as_raw() == old.subject().as_raw()
                    && is_issued_by(der, ca)
            })
        })
    };
    let mut roots = shown.iter().filter(|der| **der != *ca);
    roots.find(crossed).map(|root| root.clone().into_owned())
}

/// A chain from its PEM file.
///
/// # Errors
/// [`PkiError::Pem`].
pub fn chain_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| PkiError::Pem("certificate chain", e))
}

/// A private key from its PEM file.
///
/// # Errors
/// [`PkiError::Pem`].
pub fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| PkiError::Pem("private key", e))
}

/// A chain as PEM, for a file.
pub fn chain_to_pem(chain: &[CertificateDer<'_>]) -> String {
    let block = |der: &CertificateDer<'_>| pem::Pem::new("CERTIFICATE", der.to_vec());
    pem::encode_many(&chain.iter().map(block).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_a_chain_its_own() {
        let key = DeviceKey::generate().unwrap();
        let back = DeviceKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(back.hash(), key.hash());
        assert!(key_from_pem(key.to_pem().as_bytes()).is_ok());

        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "d-1");
        let cert = params.self_signed(&key.0).unwrap();
        let chain = vec![cert.der().clone()];
        assert_eq!(chain_from_pem(chain_to_pem(&chain).as_bytes()).unwrap(), chain);
        let parsed = DeviceCertificate::parse(&chain[0]).unwrap();
        assert_eq!((parsed.device.as_str(), parsed.key), ("d-1", key.hash()));
        assert!(DeviceCertificate::parse(b"junk").is_err());
    }
}
