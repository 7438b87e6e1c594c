//! Public keys and what they have signed: Ed25519, ECDSA on P-256 and RSA-PSS, the three of the
//! specification (section 4.2). A key of another kind is no error: it never counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use super::canonical;
use crate::id::ContentHash;
use crate::manifest::SignerKey;

/// A public key, as metadata hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`, `ecdsa` or `rsa`.
    pub keytype: String,
    /// How it signs.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
    /// What else is said of it.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// Hexadecimal for Ed25519, PEM for the others.
    pub public: String,
    /// What else is said of it.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl From<SignerKey> for Key {
    fn from(key: SignerKey) -> Self {
        let keyval = KeyValue { public: hex::encode(key.0), other: BTreeMap::new() };
        let name = || "ed25519".to_owned();
        Self { keytype: name(), scheme: name(), keyval, other: BTreeMap::new() }
    }
}

impl Key {
    /// Its name: SHA-256 of its canonical form, hexadecimal.
    pub fn id(&self) -> String {
        let value = serde_json::to_value(self).expect("strings are always JSON");
        let text = canonical::to_text(&value).expect("no number is in a key of ours");
        ContentHash::of(text.as_bytes()).to_string()
    }

    /// Whether the signature (hexadecimal) over this text is this key's.
    pub fn has_signed(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = hex::decode(signature) else { return false };
        let Some((algorithm, public)) = self.algorithm() else { return false };
        UnparsedPublicKey::new(algorithm, public).verify(text.as_bytes(), &signature).is_ok()
    }

    fn algorithm(&self) -> Option<(&'static dyn VerificationAlgorithm, Vec<u8>)> {
        let public = &self.keyval.public;
        match (self.keytype.as_str(), self.scheme.as_str()) {
            ("ed25519", "ed25519") => Some((&ED25519, hex::decode(public).ok()?)),
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                Some((&ECDSA_P256_SHA256_ASN1, public_bits(public, &EC_P256)?))
            }
            ("rsa", "rsassa-pss-sha256") => {
                Some((&RSA_PSS_2048_8192_SHA256, public_bits(public, &RSA)?))
            }
            _ => None,
        }
    }
}

/// The algorithm identifiers (RFC 5480 and 3279), DER: `id-ecPublicKey` with `secp256r1`, and
/// `rsaEncryption` with its NULL.
pub(crate) const EC_P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
const RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The key bits of a `SubjectPublicKeyInfo` with this algorithm identifier, in PEM.
pub(crate) fn public_bits(pem: &str, algorithm: &[u8]) -> Option<Vec<u8>> {
    let der = from_pem("PUBLIC KEY", pem)?;
    let (info, rest) = der_value(&der, 0x30)?;
    let (bits, end) = der_value(info.strip_prefix(algorithm)?, 0x03)?;
    let (unused, bits) = bits.split_first()?;
    (rest.is_empty() && end.is_empty() && *unused == 0).then(|| bits.to_vec())
}

/// What is between the two lines of a PEM text with this label.
pub(crate) fn from_pem(label: &str, pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(base64).ok()
}

/// The content of the DER value with this tag in front, and what follows it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    rest.split_at_checked(length)
}
