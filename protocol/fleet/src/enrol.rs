//! Whether a token buys a certificate.
//!
//! A token is good for one key, or for as many as its maker said. Should the answer get lost on its way, the
//! same key may ask again while the token lives, and counts once; any key beyond the count is refused.

use protocol::limits::{NAME_MAX_BYTES, TOKEN_DEVICES_MAX};
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;

/// Stands in a label for the number of the device.
pub const NUMBER: &str = "{n}";

/// What is stored of a token, as the holder of one key finds it.
#[derive(Debug, Clone, Copy)]
pub struct TokenRecord {
    /// SHA-256 of its secret.
    pub secret: SecretDigest,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
    /// Whether it was taken back.
    pub is_revoked: bool,
    /// How many keys it is good for.
    pub uses_max: u32,
    /// How many it was used for.
    pub uses: u32,
    /// Whether this key is one of them.
    pub knows_key: bool,
}

/// What the token buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// A new device, the token's `n`th, from 1 on.
    NewDevice {
        /// Its number.
        number: u32,
    },
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
    now_s: i64,
) -> Result<Grant, Problem> {
    let fresh = "ask the operator for a fresh one: outrigger device token";
    let refuse = |text: &str| Err(Problem::new(ProblemCode::Unauthorised, text).hint(fresh));
    let Some(record) = record.filter(|r| r.secret.matches(presented)) else {
        return refuse("this enrolment token is unknown here");
    };
    match record {
        _ if now_s >= record.expires_at_s => refuse("this enrolment token has expired"),
        TokenRecord { is_revoked: true, .. } => refuse("this enrolment token was revoked"),
        TokenRecord { knows_key: true, .. } => Ok(Grant::SameDevice),
        TokenRecord { uses, uses_max, .. } if uses < uses_max => {
            Ok(Grant::NewDevice { number: uses + 1 })
        }
        TokenRecord { uses_max: 1, .. } => {
            refuse("this enrolment token was used before, by another device")
        }
        _ => refuse("this enrolment token was used before, by as many devices as it is good for"),
    }
}

/// Why a token is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerms {
    /// Too long, or on several lines.
    #[error("a label has at most {NAME_MAX_BYTES} bytes, on one line")]
    Label,
    /// A place for something that nobody fills in.
    #[error("a label has no braces but {NUMBER}, for the number of the device")]
    Braces,
    /// All devices would be called the same.
    #[error("a label for several devices needs {NUMBER}, for the number of the device")]
    NoNumber,
    /// For nobody, or for more than a token may let in.
    #[error("a token is good for 1 to {TOKEN_DEVICES_MAX} devices")]
    Count,
}

/// Checks what a token is to be good for, and the label or pattern of labels of its devices.
///
/// # Errors
/// [`InvalidTerms`].
pub fn check(label: &str, uses_max: u32) -> Result<(), InvalidTerms> {
    let rest = label.replace(NUMBER, "");
    match uses_max {
        _ if label.len() > NAME_MAX_BYTES || label.contains(char::is_control) => {
            Err(InvalidTerms::Label)
        }
        _ if rest.contains(['{', '}']) => Err(InvalidTerms::Braces),
        count if !(1..=TOKEN_DEVICES_MAX).contains(&count) => Err(InvalidTerms::Count),
        2.. if !label.is_empty() && rest.len() == label.len() => Err(InvalidTerms::NoNumber),
        _ => Ok(()),
    }
}

/// What the `n`th device of a token is called.
pub fn label(pattern: &str, number: u32) -> String {
    pattern.replace(NUMBER, &number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::token::Secret;

    fn record(uses: u32, uses_max: u32, knows_key: bool) -> TokenRecord {
        let secret = Secret::from_entropy([1; 32]).digest();
        TokenRecord { secret, expires_at_s: 100, is_revoked: false, uses_max, uses, knows_key }
    }

    #[test]
    fn as_many_keys_as_were_said_and_each_of_them_again() {
        let (good, wrong) = ([1; 32], [2; 32]);
        let check = |record: Option<TokenRecord>, secret, now_s| {
            let presented = Secret::from_entropy(secret).digest();
            decide(record.as_ref(), &presented, now_s).map_err(|p| p.message)
        };
        let granted = [(0, 1, false), (1, 1, true), (9, 10, false), (10, 10, true)];
        let granted =
            granted.map(|(uses, max, knows)| check(Some(record(uses, max, knows)), good, 99));
        let new = |number| Ok(Grant::NewDevice { number });
        assert_eq!(granted, [new(1), Ok(Grant::SameDevice), new(10), Ok(Grant::SameDevice)]);
        let revoked = TokenRecord { is_revoked: true, ..record(0, 1, false) };
        for (record, secret, now_s, why) in [
            (Some(record(1, 1, false)), good, 99, "by another device"),
            (Some(record(10, 10, false)), good, 99, "by as many devices"),
            (Some(record(0, 1, false)), good, 100, "expired"),
            (Some(record(1, 1, true)), good, 100, "expired"),
            (Some(revoked), good, 99, "revoked"),
            (Some(TokenRecord { knows_key: true, ..revoked }), good, 99, "revoked"),
            (Some(record(0, 1, false)), wrong, 99, "unknown"),
            (None, good, 99, "unknown"),
        ] {
            let refused = check(record, secret, now_s).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn labels_number_the_devices() {
        assert_eq!(label("line-{n}", 7), "line-7");
        assert_eq!(label("door", 1), "door");
        let long = "x".repeat(NAME_MAX_BYTES + 1);
        for (label, count, expected) in [
            ("", 1, Ok(())),
            ("", 100, Ok(())),
            ("door", 1, Ok(())),
            ("line-{n}", 100, Ok(())),
            ("door", 2, Err(InvalidTerms::NoNumber)),
            ("{x}", 1, Err(InvalidTerms::Braces)),
            ("{n", 1, Err(InvalidTerms::Braces)),
            ("a\nb", 1, Err(InvalidTerms::Label)),
            (&long, 1, Err(InvalidTerms::Label)),
            ("", 0, Err(InvalidTerms::Count)),
            ("", TOKEN_DEVICES_MAX + 1, Err(InvalidTerms::Count)),
        ] {
            assert_eq!(check(label, count), expected, "{label:?} {count}");
        }
    }
}
