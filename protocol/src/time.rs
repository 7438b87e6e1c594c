//! Time that only the fleet CA can tell. A device sends a fresh nonce; the answer holds it, so that
//! no former answer fits; and the signed text begins with words of its own, so that no signature that
//! the CA ever made for something else fits either (a certificate begins with 0x30).

use crate::wire::SignedTime;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
const DOMAIN: &[u8] = b"outrigger signed time 1\0";

/// A device's question.
pub type Nonce = [u8; NONCE_BYTES];

/// The bytes that the fleet CA signs.
pub fn signed_text(nonce: &Nonce, unix_ms: u64) -> Vec<u8> {
    [DOMAIN, nonce, &unix_ms.to_be_bytes()].concat()
}

/// Why an answer is none, before its signature is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    /// An old answer, or somebody else's.
    #[error("the answer is not to this device's question: a replay?")]
    Nonce,
    /// Beyond what a calendar knows.
    #[error("{0} ms is no time")]
    Range(u64),
}

/// The time in an answer to `nonce`, Unix milliseconds. Its signature is still to be verified.
///
/// # Errors
/// [`InvalidTime`].
pub fn answered_ms(answer: &SignedTime, nonce: &Nonce) -> Result<i64, InvalidTime> {
    if answer.nonce != nonce.as_slice() {
        return Err(InvalidTime::Nonce);
    }
    i64::try_from(answer.unix_ms).map_err(|_| InvalidTime::Range(answer.unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_fixed_places() {
        let text = signed_text(&[7; NONCE_BYTES], 0x0102);
        assert_eq!(text.len(), DOMAIN.len() + NONCE_BYTES + 8);
        assert!(text.starts_with(DOMAIN) && text.ends_with(&[0, 0, 0, 0, 0, 0, 1, 2]));
    }

    #[test]
    fn only_the_answer_to_the_own_question_counts() {
        let answer = |nonce: &[u8], unix_ms| SignedTime {
            unix_ms,
            nonce: nonce.to_vec().into(),
            ..Default::default()
        };
        let own = [1; NONCE_BYTES];
        assert_eq!(answered_ms(&answer(&own, 5), &own), Ok(5));
        for other in [&[2; NONCE_BYTES][..], &own[..31], &[]] {
            assert_eq!(answered_ms(&answer(other, 5), &own), Err(InvalidTime::Nonce));
        }
        let never = answered_ms(&answer(&own, u64::MAX), &own);
        assert_eq!(never, Err(InvalidTime::Range(u64::MAX)));
    }
}
