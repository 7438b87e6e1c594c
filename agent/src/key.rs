//! Where the device's private key lives: in a file of the state folder, or in a token that never lets it out
//! (a TPM, a smart card, an HSM), reached through its PKCS#11 module.
//!
//! What is kept of a token's key is where to find it, a PKCS#11 URI (RFC 7512, [`uri`]), beside the
//! certificate; the PIN stays in the file that the URI names. [`token`] opens and signs.

#[cfg(feature = "pkcs11")]
pub(crate) mod token;
#[cfg(not(feature = "pkcs11"))]
#[path = "key/absent.rs"]
pub(crate) mod token;
pub(crate) mod uri;

use ::link::pki::{self, DeviceKey, PkiError};
use ::link::tls::PrivateKey;
use protocol::id::ContentHash;
use std::sync::Arc;
use token::TokenKey;

/// The device's key.
pub(crate) enum Key {
    /// In a file.
    File(Box<DeviceKey>),
    /// In a token.
    Token(Arc<TokenKey>),
}

impl Key {
    /// A signing request (PKCS#10, DER).
    pub(crate) fn signing_request(&self) -> Result<Vec<u8>, PkiError> {
        match self {
            Self::File(key) => key.signing_request(),
            Self::Token(key) => {
                let sign = |text: &[u8]| key.sign(text).map_err(Box::from);
                pki::signing_request_by(key.point(), &sign)
            }
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what the device is known by.
    pub(crate) fn hash(&self) -> ContentHash {
        match self {
            Self::File(key) => key.hash(),
            Self::Token(key) => ContentHash::of(&pki::p256_public_key(key.point())),
        }
    }

    /// For TLS.
    pub(crate) fn tls(&self) -> Result<PrivateKey, PkiError> {
        match self {
            Self::File(key) => Ok(PrivateKey::Der(pki::key_from_pem(key.to_pem().as_bytes())?)),
            Self::Token(key) => Ok(PrivateKey::Held(token::for_tls(key.clone()))),
        }
    }

    /// Where it lives, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::File(_) => "in a file that only the agent can read".into(),
            Self::Token(key) => key.place(),
        }
    }
}
