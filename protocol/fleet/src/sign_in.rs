//! Sign-in of operators through an OpenID provider: everything about it that is no IO.
//!
//! The cloud is the relying party (authorization code flow with PKCE). The command only opens a browser, and
//! listens on loopback for where that ends; it knows nothing of the provider. [`ticket`] binds the end of a
//! sign-in to its beginning without keeping anything in between, so that nobody without a key can fill memory;
//! [`provider`] is what the provider says of itself, [`jwk`] its keys, [`id_token`] what it says of a person,
//! and [`roles`] what that person may do.
//!
//! Nothing that comes from the provider or a browser is believed before it was bounded and checked; a token
//! says nothing at all before its signature holds under a key of the provider, by an algorithm that this key
//! is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;

pub mod id_token;
pub mod jwk;
pub mod provider;
pub mod roles;
pub mod ticket;

#[cfg(test)]
mod tests;

/// Sign-ins of one person that can be used; with one more, the oldest ends.
pub const SIGN_INS_MAX: u32 = 8;
/// Sign-ins of all people that can be used: half of all keys, so that there is room for others.
pub const ALL_SIGN_INS_MAX: u32 = 5000;
/// Exchanges with the provider at a time.
pub const EXCHANGES_MAX: usize = 4;
/// How long one may take in all.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// How long somebody stays signed in unless the cloud says otherwise, in hours.
pub const SESSION_H: u32 = 8;
/// The longest that it may say, in hours: a week.
pub const SESSION_MAX_H: u32 = 168;

/// Base64 as JOSE has it: for URLs, without padding.
fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
