//! Whether a token buys a certificate.
//!
//! A token is good for one key. Should the answer get lost on its way, the same key may ask again
//! while the token lives; any other key is refused.

use protocol::id::ContentHash;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;

/// What is stored of a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenRecord {
    /// SHA-256 of its secret.
    pub secret: SecretDigest,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
    /// The key that it was used for: SHA-256 of the SubjectPublicKeyInfo.
    pub used_by: Option<ContentHash>,
}

/// What the token buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A new device.
    NewDevice,
    /// A certificate for the device that this token made before.
    SameDevice,
}

/// Decides about a request to enrol. `record` is `None` for an unknown token id; it is refused in
/// the same words as a wrong secret, so that ids cannot be probed.
///
/// # Errors
/// Why not.
pub fn decide(
    record: Option<&TokenRecord>,
    presented: &SecretDigest,
    key: ContentHash,
    now_s: i64,
) -> Result<Grant, Problem> {
    let refuse =
        |text: &str, hint: &str| Err(Problem::new(ProblemCode::Unauthorised, text).hint(hint));
    let fresh = "ask the operator for a fresh one: outrigger device token";
    let Some(record) = record.filter(|r| r.secret.matches(presented)) else {
        return refuse("this enrolment token is unknown here", fresh);
    };
    match record.used_by {
        _ if now_s >= record.expires_at_s => refuse("this enrolment token has expired", fresh),
        Some(used_by) if used_by == key => Ok(Grant::SameDevice),
        Some(_) => refuse("this enrolment token was used before, by another device", fresh),
        None => Ok(Grant::NewDevice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::token::Secret;

    #[test]
    fn one_token_one_key() {
        let secret = Secret::from_entropy([1; 32]).digest();
        let wrong = Secret::from_entropy([2; 32]).digest();
        let (mine, other) = (ContentHash::of(b"mine"), ContentHash::of(b"other"));
        let fresh = TokenRecord { secret, expires_at_s: 100, used_by: None };
        let used = TokenRecord { used_by: Some(mine), ..fresh };
        let check = |record: Option<&TokenRecord>, secret, key, now_s| {
            decide(record, secret, key, now_s).map_err(|p| p.message)
        };
        assert_eq!(check(Some(&fresh), &secret, mine, 99), Ok(Grant::NewDevice));
        assert_eq!(check(Some(&used), &secret, mine, 99), Ok(Grant::SameDevice));
        for (record, secret, key, now_s, why) in [
            (Some(&used), &secret, other, 99, "used before"),
            (Some(&fresh), &secret, mine, 100, "expired"),
            (Some(&used), &secret, mine, 100, "expired"),
            (Some(&fresh), &wrong, mine, 99, "unknown"),
            (None, &secret, mine, 99, "unknown"),
        ] {
            let refused = check(record, secret, key, now_s).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
