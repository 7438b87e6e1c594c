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

pub mod id_token;
pub mod jwk;
pub mod provider;
pub mod roles;
pub mod ticket;

#[cfg(test)]
mod tests;

/// Base64 as JOSE has it: for URLs, without padding.
fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
