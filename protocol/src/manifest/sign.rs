//! Ed25519 signatures (RFC 8032) over manifests.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use std::fmt;

use super::{InvalidManifest, Manifest};
use crate::id::ContentHash;
use crate::limits::MANIFEST_MAX_BYTES;

/// Separates signatures over manifests from any other use of the same key.
const CONTEXT: &[u8] = b"outrigger-manifest-v1\0";

/// A manifest's exact text with one signature, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedManifest {
    /// The manifest's JSON, byte for byte as it was signed.
    pub manifest: String,
    /// SHA-256 of the signer's public key.
    pub key_id: ContentHash,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// Why a signed manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// Not JSON of this shape, or too large.
    #[error("not a signed manifest (JSON of at most {MANIFEST_MAX_BYTES} bytes)")]
    Malformed,
    /// Signed by a key that is not trusted here.
    #[error("signed by key {0:.16}…, which is not trusted here")]
    UnknownKey(ContentHash),
    /// The signature does not fit the manifest: it was altered or forged.
    #[error("the signature does not fit the manifest: it was altered or forged")]
    Forged,
    /// Rightly signed, but not usable.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
}

impl SignedManifest {
    /// Reads a signed manifest, without trusting it yet.
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidSignature> {
        if bytes.len() > MANIFEST_MAX_BYTES {
            return Err(InvalidSignature::Malformed);
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidSignature::Malformed)
    }

    /// The bytes that are stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("three strings are always JSON")
    }

    /// The bundle's name: the hash of the manifest's exact bytes.
    pub fn bundle(&self) -> ContentHash {
        ContentHash::of(self.manifest.as_bytes())
    }

    /// The manifest, once one of `trusted` proves to have signed it.
    ///
    /// # Errors
    /// [`InvalidSignature`].
    pub fn verify(&self, trusted: &[SignerKey]) -> Result<Manifest, InvalidSignature> {
        let key = trusted
            .iter()
            .find(|k| k.key_id() == self.key_id)
            .ok_or(InvalidSignature::UnknownKey(self.key_id))?;
        if !key.has_signed(CONTEXT, &self.manifest, &self.signature) {
            return Err(InvalidSignature::Forged);
        }
        Ok(Manifest::from_json(self.manifest.as_bytes())?)
    }
}

/// The public half of a signing key: 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignerKey(pub [u8; 32]);

impl SignerKey {
    /// A key from its bytes, if there are 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// SHA-256 of the key.
    pub fn key_id(&self) -> ContentHash {
        ContentHash::of(&self.0)
    }

    /// Whether the signature (hexadecimal) is this key's, over this text, made for this context.
    pub(crate) fn has_signed(&self, context: &[u8], text: &str, signature: &str) -> bool {
        let Ok(signature) = hex::decode(signature) else { return false };
        let signed = [context, text.as_bytes()].concat();
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&signed, &signature).is_ok()
    }
}

/// The private half, which stays with the operator.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key that this 32-byte seed stands for.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Self(pair.expect("every 32 bytes are an Ed25519 seed"))
    }

    /// Its public half.
    pub fn public(&self) -> SignerKey {
        let bytes = self.0.public_key().as_ref();
        SignerKey(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs a manifest.
    pub fn sign(&self, manifest: &Manifest) -> SignedManifest {
        let text = String::from_utf8(manifest.to_json()).expect("JSON is UTF-8");
        let signature = self.sign_text(CONTEXT, &text);
        SignedManifest { manifest: text, key_id: self.public().key_id(), signature }
    }

    /// The signature over a text, hexadecimal. A context keeps it from being good for anything else.
    pub(crate) fn sign_text(&self, context: &[u8], text: &str) -> String {
        hex::encode(self.0.sign(&[context, text.as_bytes()].concat()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {})", hex::encode(self.public().0))
    }
}
