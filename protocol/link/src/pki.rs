//! Keys and certificates: what a device makes for itself, and what is read from a peer's.

use protocol::id::{ContentHash, DeviceId};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key could not be made, or a request not be signed.
    #[error("cannot make a key or a certificate")]
    Make(#[from] rcgen::Error),
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
