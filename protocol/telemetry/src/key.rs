//! The operator's analytics key: X25519, as 32 bytes each half.
//!
//! How its public half comes to a device so that the cloud cannot exchange it: `protocol::analytics`.

use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::{Deserializable, Serializable};
use protocol::id::ContentHash;
use std::fmt;

/// Bytes of each half.
pub const KEY_BYTES: usize = 32;

type Suite = X25519HkdfSha256;

/// Those bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an analytics key: {KEY_BYTES} bytes as hexadecimal digits")]
pub struct InvalidKey;

/// For whom segments are sealed.
#[derive(Clone)]
pub struct PublicKey {
    pub(crate) key: <Suite as Kem>::PublicKey,
    id: ContentHash,
}

impl PublicKey {
    /// Reads it.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let key = Deserializable::from_bytes(bytes).map_err(|_| InvalidKey)?;
        Ok(Self { key, id: ContentHash::of(bytes) })
    }

    /// Reads hexadecimal digits.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        Self::from_bytes(&hex::decode(text.trim()).map_err(|_| InvalidKey)?)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        self.key.to_bytes().into()
    }

    /// Its SHA-256, by which segments name it.
    pub fn id(&self) -> ContentHash {
        self.id
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:.16})", self.id.to_string())
    }
}

/// Who can open them; stays with the operator.
#[derive(Clone)]
pub struct PrivateKey {
    pub(crate) key: <Suite as Kem>::PrivateKey,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes one from 32 fresh random bytes, as RFC 9180 derives it.
    pub fn from_entropy(entropy: &[u8; KEY_BYTES]) -> Self {
        let (key, public) = Suite::derive_keypair(entropy);
        Self::with(key, &public)
    }

    fn with(key: <Suite as Kem>::PrivateKey, public: &<Suite as Kem>::PublicKey) -> Self {
        let id = ContentHash::of(&public.to_bytes());
        Self { key, public: PublicKey { key: public.clone(), id } }
    }

    /// Reads hexadecimal digits.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        let bytes = hex::decode(text.trim()).map_err(|_| InvalidKey)?;
        let key = <Suite as Kem>::PrivateKey::from_bytes(&bytes).map_err(|_| InvalidKey)?;
        let public = Suite::sk_to_pk(&key);
        Ok(Self::with(key, &public))
    }

    /// As it is written to a file that nobody else may read.
    pub fn to_hex(&self) -> String {
        hex::encode(self.key.to_bytes())
    }

    /// Its other half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public)
    }
}
