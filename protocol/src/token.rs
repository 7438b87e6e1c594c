//! Enrolment tokens and operator keys: `id.secret.cahash`.
//!
//! The `id` finds the record, the 256-bit `secret` proves possession, and `cahash` (SHA-256 of the
//! fleet CA's certificate, DER) lets the holder know the right server before it sends anything.

use ring::digest;
use std::fmt;
use std::str::FromStr;

use crate::id::ContentHash;
use crate::limits::TOKEN_MAX_BYTES;

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a token has the form ID.SECRET.CAHASH (16, 64 and 64 hexadecimal digits); it may have been cut or wrapped when it was copied"
)]
pub struct InvalidToken;

/// A secret of 256 random bits. It never shows itself in logs.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret made of these random bytes.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(entropy)
    }

    /// The secret as it is written in a token. Only for the wire and for showing it once.
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }

    /// What is stored instead of the secret: its SHA-256.
    pub fn digest(&self) -> SecretDigest {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        SecretDigest(out)
    }
}

impl FromStr for Secret {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidToken)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// SHA-256 of a secret. Compared in constant time only.
#[derive(Debug, Clone, Copy)]
pub struct SecretDigest(pub [u8; 32]);

impl SecretDigest {
    /// Whether both are the same, in time that does not depend on where they differ.
    pub fn matches(&self, other: &SecretDigest) -> bool {
        let difference = self.0.iter().zip(other.0).fold(0u8, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// A token, whole.
#[derive(Debug, Clone)]
pub struct Token {
    /// Finds the record.
    pub id: String,
    /// Proves possession.
    pub secret: Secret,
    /// SHA-256 of the fleet CA's certificate.
    pub ca_hash: ContentHash,
}

impl Token {
    /// A fresh token of these random bytes, for the CA with this hash.
    pub fn from_entropy(id: [u8; 8], secret: [u8; 32], ca_hash: ContentHash) -> Self {
        Self { id: Self::id_from_entropy(id), secret: Secret::from_entropy(secret), ca_hash }
    }

    /// The token as text. Only for showing it once, or for a file with mode 0600.
    pub fn reveal(&self) -> String {
        format!("{}.{}.{}", self.id, self.secret.reveal(), self.ca_hash)
    }

    /// A fresh token id from random bytes.
    pub fn id_from_entropy(entropy: [u8; 8]) -> String {
        hex::encode(entropy)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.len() > TOKEN_MAX_BYTES {
            return Err(InvalidToken);
        }
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(InvalidToken);
        let (id, secret, ca_hash) = (next()?, next()?, next()?);
        let id_is_valid = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if parts.next().is_some() || !id_is_valid {
            return Err(InvalidToken);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: secret.parse()?,
            ca_hash: ca_hash.parse().map_err(|_| InvalidToken)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            id: Token::id_from_entropy([7; 8]),
            secret: Secret::from_entropy([9; 32]),
            ca_hash: ContentHash::of(b"ca"),
        }
    }

    #[test]
    fn round_trip_with_white_space_around() {
        let back: Token = format!(" {}\n", token().reveal()).parse().unwrap();
        assert_eq!(back.reveal(), token().reveal());
        assert!(back.secret.digest().matches(&token().secret.digest()));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let whole = token().reveal();
        for bad in ["", "a.b.c", &whole[1..], &whole[..whole.len() - 1], &format!("{whole}.x")] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let shown = format!("{:?}", token());
        assert!(!shown.contains(&token().secret.reveal()), "{shown}");
    }

    #[test]
    fn digests_differ_in_any_bit() {
        let good = token().secret.digest();
        for bit in 0..256 {
            let mut other = good;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!good.matches(&other));
        }
    }
}
