//! Writing metadata: what is said, signed by keys that are at hand.

use super::canonical::{self, NotCanonical};
use super::key::Key;
use super::metadata::{Envelope, Said, Signature};
use crate::manifest::SigningKey;

impl SigningKey {
    /// Its public half, as metadata hold it.
    pub fn tuf_key(&self) -> Key {
        self.public().into()
    }
}

impl Envelope {
    /// A file that says this, signed by nobody yet.
    pub fn unsigned(said: &impl Said) -> Self {
        let signed = serde_json::to_value(said).expect("metadata are always JSON");
        Self { signatures: Vec::new(), signed }
    }

    /// Signs it; an older signature of the same key goes.
    ///
    /// # Errors
    /// [`NotCanonical`], where what is said has no form that can be signed.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), NotCanonical> {
        let text = canonical::to_text(&self.signed)?;
        let keyid = key.tuf_key().id();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature { keyid, sig: key.sign_text(&[], &text) });
        Ok(())
    }

    /// A file that says this, signed by all of these.
    ///
    /// # Errors
    /// [`NotCanonical`].
    pub fn signed_by<'a>(
        said: &impl Said,
        keys: impl IntoIterator<Item = &'a SigningKey>,
    ) -> Result<Self, NotCanonical> {
        let mut envelope = Self::unsigned(said);
        for key in keys {
            envelope.sign(key)?;
        }
        Ok(envelope)
    }
}
