//! For whom devices seal what they record: the operator's analytics key, in a statement that an operator's key has
//! signed. The cloud only carries it: one that was taken over can neither name a key of its own nor bring back
//! one that was exchanged, since statements are numbered.

use serde::{Deserialize, Serialize};

use crate::id::ContentHash;
use crate::manifest::{InvalidSignature, SignerKey, SigningKey};

/// Separates this from whatever else an operator's key signs.
const CONTEXT: &[u8] = b"outrigger-analytics-v1\0";
/// The path of the signed statement in a fleet's repository, where there is one: then targets must name it too.
pub const TARGET: &str = "telemetry/key.json";
/// A signed statement as JSON: 4 KiB.
pub const STATEMENT_MAX_BYTES: usize = 4 << 10;
/// Hexadecimal digits of a key.
const KEY_DIGITS: usize = 64;

/// Which key it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The X25519 public key, hexadecimal.
    pub public_key: String,
    /// Grows with every statement; a device believes none that is older than what it has seen.
    pub serial: u64,
}

/// A statement's exact text with an operator's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedStatement {
    /// The statement's JSON, byte for byte as it was signed.
    pub statement: String,
    /// SHA-256 of the operator's public key.
    pub key_id: ContentHash,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStatement {
    /// By nobody who may, or altered.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
    /// A newer one was seen.
    #[error("statement {offered} of the analytics key is older than {seen}, which was seen before")]
    Rollback {
        /// Its number.
        offered: u64,
        /// The newest.
        seen: u64,
    },
}

impl Statement {
    /// Signs it with a key that devices trust.
    pub fn sign(&self, operator: &SigningKey) -> SignedStatement {
        let statement = serde_json::to_string(self).expect("strings and numbers are always JSON");
        let signature = operator.sign_text(CONTEXT, &statement);
        SignedStatement { statement, key_id: operator.public().key_id(), signature }
    }
}

impl SignedStatement {
    /// Reads it, without believing it yet.
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidSignature> {
        if bytes.len() > STATEMENT_MAX_BYTES {
            return Err(InvalidSignature::Malformed);
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidSignature::Malformed)
    }

    /// As it is kept and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are always JSON")
    }

    /// What it says, without trusting it.
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`].
    pub fn read(&self) -> Result<Statement, InvalidSignature> {
        let read: Statement =
            serde_json::from_str(&self.statement).map_err(|_| InvalidSignature::Malformed)?;
        let is_key = read.public_key.len() == KEY_DIGITS && hex::decode(&read.public_key).is_ok();
        is_key.then_some(read).ok_or(InvalidSignature::Malformed)
    }

    /// What it says, if one of `trusted` has signed it, and none newer than it was `seen`.
    ///
    /// # Errors
    /// [`InvalidStatement`].
    pub fn verify(&self, trusted: &[SignerKey], seen: u64) -> Result<Statement, InvalidStatement> {
        let key = trusted.iter().find(|key| key.key_id() == self.key_id);
        let key = key.ok_or(InvalidSignature::UnknownKey(self.key_id))?;
        if !key.has_signed(CONTEXT, &self.statement, &self.signature) {
            return Err(InvalidSignature::Forged.into());
        }
        let statement = self.read()?;
        match statement.serial < seen {
            true => Err(InvalidStatement::Rollback { offered: statement.serial, seen }),
            false => Ok(statement),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    #[test]
    fn only_an_operators_newest_word_is_believed() {
        let statement = Statement { public_key: "ab".repeat(32), serial: 2 };
        let signed = SignedStatement::from_json(&statement.sign(&operator(1)).to_json()).unwrap();
        let trusted = [operator(1).public()];
        assert_eq!(signed.verify(&trusted, 2), Ok(statement.clone()));
        let rollback = InvalidStatement::Rollback { offered: 2, seen: 3 };
        assert_eq!(signed.verify(&trusted, 3), Err(rollback));
        let unknown = InvalidSignature::UnknownKey(operator(1).public().key_id());
        assert_eq!(signed.verify(&[operator(2).public()], 0), Err(unknown.into()));
        let swapped =
            SignedStatement { statement: signed.statement.replace("ab", "cd"), ..signed.clone() };
        assert_eq!(swapped.verify(&trusted, 0), Err(InvalidSignature::Forged.into()));
        let no_key = Statement { public_key: "xy".repeat(32), serial: 2 }.sign(&operator(1));
        assert_eq!(no_key.verify(&trusted, 0), Err(InvalidSignature::Malformed.into()));
        assert!(SignedStatement::from_json(&[b' '; STATEMENT_MAX_BYTES + 1]).is_err());
    }
}
