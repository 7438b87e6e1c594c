//! What a provider says of a person: an ID token (OpenID Connect Core, 2 and 3.1.3.7), a signed JWT in compact form.
//!
//! Who reads a token decides how it may be signed, never the token: its header only chooses among the keys of the
//! provider, each of which is for the algorithms of its kind alone. Keys and addresses of keys in a header are not
//! looked at.

use protocol::token::SecretDigest;
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::decoded;
use super::jwk::{Algorithm, KeySet, UnknownAlgorithm};

/// The longest token.
pub const TOKEN_MAX_BYTES: usize = 16 << 10;
/// How far the provider's clock may be from this one's, in seconds.
pub const LEEWAY_S: i64 = 60;
/// How long ago a token may have been made, in seconds: it is fetched at once.
pub const AGE_MAX_S: i64 = 600;
/// The longest subject (OpenID Connect Core, 2).
pub const SUBJECT_MAX_BYTES: usize = 255;
/// Keys that are tried, and audiences that are read.
const AUDIENCES_MAX: usize = 64;

/// Of whom the token has to be, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// This cloud, as the provider knows it.
    pub client_id: &'a str,
    /// Of this very sign-in.
    pub nonce: &'a str,
    /// Unix seconds.
    pub now_s: i64,
}

/// What was said of a person, by whoever may say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// Who it is, for this provider and for ever.
    pub subject: String,
    /// All of it.
    pub all: Map<String, Value>,
}

/// Why a token says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than is read.
    #[error("the ID token is larger than {} KiB", TOKEN_MAX_BYTES >> 10)]
    TooLarge,
    /// Not three parts in base64url, or no JSON in them.
    #[error("the ID token is no signed token")]
    Form,
    /// Its header wants something that has to be understood.
    #[error("the ID token has a critical header")]
    Critical,
    /// A signature that is not believed, or none at all.
    #[error(transparent)]
    Algorithm(#[from] UnknownAlgorithm),
    /// Signed by a key that the provider does not show.
    #[error("the ID token is signed by a key that the provider does not show")]
    UnknownKey,
    /// The signature does not hold.
    #[error("the ID token's signature does not hold")]
    Signature,
    /// A claim that has to be there, and be of its type.
    #[error("the ID token has no valid {0}")]
    Claim(&'static str),
    /// Another provider's.
    #[error("the ID token is of another issuer")]
    Issuer,
    /// Made for somebody else.
    #[error("the ID token is for another client")]
    Audience,
    /// Of another sign-in.
    #[error("the ID token is of another sign-in")]
    Nonce,
    /// Its time is over.
    #[error("the ID token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the ID token is not valid yet; are the clocks right?")]
    NotYet,
    /// Made too long ago.
    #[error("the ID token was made long ago; are the clocks right?")]
    Stale,
}

impl TokenError {
    /// Whether keys that the provider has had for a short time may help.
    pub fn may_be_newer_key(&self) -> bool {
        matches!(self, Self::UnknownKey | Self::Signature)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// What a token says, once all of it holds.
///
/// # Errors
/// [`TokenError`]; then it says nothing.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_MAX_BYTES {
        return Err(TokenError::TooLarge);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
    let parts = signed.split_once('.').filter(|(_, payload)| !payload.contains('.'));
    let (header, payload) = parts.ok_or(TokenError::Form)?;
    let header: Header = json(header)?;
    if header.crit.is_some() {
        return Err(TokenError::Critical);
    }
    let algorithm: Algorithm = header.alg.parse()?;
    let signature = decoded(signature).ok_or(TokenError::Form)?;
    let mut candidates = keys.candidates(header.kid.as_deref(), algorithm).peekable();
    candidates.peek().ok_or(TokenError::UnknownKey)?;
    if !candidates.any(|key| key.has_signed(signed.as_bytes(), &signature, algorithm)) {
        return Err(TokenError::Signature);
    }
    let claims: Map<String, Value> = json(payload)?;
    check(&claims, expected)?;
    let subject = subject(&claims).ok_or(TokenError::Claim("sub"))?;
    Ok(Claims { subject, all: claims })
}

fn json<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, TokenError> {
    let bytes = decoded(part).ok_or(TokenError::Form)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Form)
}

fn check(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), TokenError> {
    if text(claims, "iss") != Some(expected.issuer) {
        return Err(TokenError::Issuer);
    }
    check_audience(claims, expected.client_id)?;
    let nonce = text(claims, "nonce").unwrap_or_default();
    if !hashed(nonce).matches(&hashed(expected.nonce)) {
        return Err(TokenError::Nonce);
    }
    check_time(claims, expected.now_s)
}

fn check_audience(claims: &Map<String, Value>, client_id: &str) -> Result<(), TokenError> {
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) if several.len() <= AUDIENCES_MAX => {
            let texts = several.iter().map(Value::as_str);
            texts.collect::<Option<_>>().ok_or(TokenError::Claim("aud"))?
        }
        _ => return Err(TokenError::Claim("aud")),
    };
    let is_ours = audiences.contains(&client_id);
    let may_be_theirs = match claims.get("azp") {
        None => audiences.len() != 1,
        Some(party) => party.as_str() != Some(client_id),
    };
    if is_ours && !may_be_theirs { Ok(()) } else { Err(TokenError::Audience) }
}

fn check_time(claims: &Map<String, Value>, now_s: i64) -> Result<(), TokenError> {
    let exp_s = seconds(claims, "exp")?.ok_or(TokenError::Claim("exp"))?;
    let iat_s = seconds(claims, "iat")?.ok_or(TokenError::Claim("iat"))?;
    let nbf_s = seconds(claims, "nbf")?;
    if now_s.saturating_sub(LEEWAY_S) >= exp_s {
        return Err(TokenError::Expired);
    }
    if iat_s.max(nbf_s.unwrap_or(iat_s)) > now_s.saturating_add(LEEWAY_S) {
        return Err(TokenError::NotYet);
    }
    if now_s.saturating_sub(iat_s) > AGE_MAX_S + LEEWAY_S {
        return Err(TokenError::Stale);
    }
    Ok(())
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A `NumericDate`: seconds, perhaps with a fraction.
#[allow(clippy::cast_possible_truncation)] // beyond the range of seconds it saturates
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_i64().or_else(|| value.as_f64().map(|s| s.floor() as i64));
    whole.map(Some).ok_or(TokenError::Claim(name))
}

/// Who it is, where that can be kept: up to 255 bytes on one line.
pub(super) fn subject(claims: &Map<String, Value>) -> Option<String> {
    let subject = text(claims, "sub")?;
    let is_kept = (1..=SUBJECT_MAX_BYTES).contains(&subject.len())
        && !subject.contains(char::is_control)
        && subject.trim() == subject;
    is_kept.then(|| subject.to_owned())
}

/// What is compared, in time that does not depend on where two differ.
fn hashed(nonce: &str) -> SecretDigest {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, nonce.as_bytes()).as_ref());
    SecretDigest(hash)
}
