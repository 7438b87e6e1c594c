//! How a device that has trusted operators' keys so far comes to a repository: an operator whose key it
//! trusts vouches for the first root. From then on nothing that an operator alone signed is installed.

use serde::{Deserialize, Serialize};

use crate::id::ContentHash;
use crate::manifest::{InvalidSignature, SignerKey, SigningKey};

/// Separates this from whatever else an operator's key signs.
const CONTEXT: &[u8] = b"outrigger-root-v1\0";

/// An operator's word for a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introduction {
    /// SHA-256 of the file of root's version 1.
    pub root: ContentHash,
    /// SHA-256 of the operator's public key.
    pub key_id: ContentHash,
    /// Ed25519, hexadecimal.
    pub signature: String,
}

impl Introduction {
    /// Vouches for a root.
    pub fn sign(root: &[u8], operator: &SigningKey) -> Self {
        let root = ContentHash::of(root);
        let signature = operator.sign_text(CONTEXT, &root.to_string());
        Self { root, key_id: operator.public().key_id(), signature }
    }

    /// Reads it, without believing it yet.
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidSignature> {
        serde_json::from_slice(bytes).map_err(|_| InvalidSignature::Malformed)
    }

    /// As it is kept and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are always JSON")
    }

    /// The hash of the root that one of `trusted` vouches for.
    ///
    /// # Errors
    /// [`InvalidSignature`].
    pub fn verify(&self, trusted: &[SignerKey]) -> Result<ContentHash, InvalidSignature> {
        let key = trusted.iter().find(|key| key.key_id() == self.key_id);
        let key = key.ok_or(InvalidSignature::UnknownKey(self.key_id))?;
        match key.has_signed(CONTEXT, &self.root.to_string(), &self.signature) {
            true => Ok(self.root),
            false => Err(InvalidSignature::Forged),
        }
    }
}
