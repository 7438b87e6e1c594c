//! `outrigger login --oidc`: the cloud knows its provider, and this command only shows it to a person.
//!
//! Nothing but the cloud is spoken to. What proves that a sign-in is the one that began here is a secret that never
//! leaves this process before the end (PKCE); the provider's tokens never reach it.

use fleet::access::Role;
use fleet::sign_in::ticket::{SIGN_IN_MAX_S, Verifier};
use protocol::id::ContentHash;
use protocol::token::Token;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

use super::callback::{Answer, Callback};
use super::{Args, Me, browser, say_next, say_who, trust};
use crate::client::Client;
use crate::config::{Config, Credentials, SIGNING_KEY};
use crate::errors::{hinted, in_words};
use crate::probe::{Address, learn_ca};

#[derive(Deserialize)]
struct Begun {
    authorization_url: String,
}

/// The key of a sign-in.
#[derive(Deserialize)]
struct Signed {
    key: String,
    name: String,
    role: Role,
    expires_at_s: i64,
}

pub(super) fn sign_in(config: &Config, address: &Address, args: &Args) -> anyhow::Result<()> {
    let ca = ca(config, address, args.ca)?;
    let client = Client::without_key(address, &ca);
    let callback = Callback::open()?;
    let verifier = Verifier::from_entropy(link::entropy());
    let redirect = callback.redirect().as_str().to_owned();
    let challenge = verifier.challenge().to_string();
    let begin = json!({ "redirect_uri": redirect, "code_challenge": challenge }).to_string();
    let begun: Begun = client.send("POST", "/v1/sign-in", begin.as_bytes())?;
    browser::show(&begun.authorization_url, !args.no_browser)?;
    let state = state_of(&begun.authorization_url);
    let patience = Duration::from_secs(SIGN_IN_MAX_S.unsigned_abs());
    let arrival = callback.wait(&state, patience)?;
    let signed = finish(&client, &arrival.answer, (&redirect, &verifier));
    if let Some(browser) = arrival.browser {
        match &signed {
            Ok(Signed { name, .. }) => {
                let text = format!("{name} is signed in to {address}. This page may be closed.");
                browser.show(true, "Signed in", &text);
            }
            Err(error) => browser.show(false, "Not signed in", &in_words(error)),
        }
    }
    settle(config, (address, &ca), signed?)
}

/// Sends what the browser brought to the cloud.
fn finish(
    client: &Client,
    answer: &Answer,
    (redirect, verifier): (&str, &Verifier),
) -> anyhow::Result<Signed> {
    if let Some(error) = &answer.error {
        let why = answer.error_description.as_deref().unwrap_or(error);
        let plain: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(hinted(format!("the provider has not signed you in: {plain}"), "begin again"));
    }
    let Some(code) = &answer.code else {
        return Err(hinted("the provider sent the browser back without a code", "begin again"));
    };
    let mut body = json!({
        "code": code, "state": answer.state, "code_verifier": verifier.reveal(),
        "redirect_uri": redirect,
    });
    if let Some(issuer) = &answer.issuer {
        body["iss"] = issuer.as_str().into();
    }
    client.send("POST", "/v1/sign-in/finish", body.to_string().as_bytes())
}

/// Keeps the key, as that of a file is kept.
fn settle(
    config: &Config,
    (address, ca): (&Address, &CertificateDer<'_>),
    signed: Signed,
) -> anyhow::Result<()> {
    let Signed { key, name, role, expires_at_s } = signed;
    let key: Token = key.parse()?;
    let credentials =
        Credentials { ends_at_s: Some(expires_at_s), ..Credentials::new(address, &key) };
    let signing = config.ensure_key(SIGNING_KEY)?.public();
    config.keep(&credentials, ca)?;
    say_who(address, &Me { name, role });
    let left_h = (expires_at_s - crate::output::now_s() + 1800) / 3600;
    eprintln!("for {left_h} hours; then: outrigger login --cloud {address} --oidc");
    trust(&Client::new(&credentials, ca), role, signing)?;
    say_next(role);
    Ok(())
}

/// The CA that the cloud has to prove before anything is sent to it.
fn ca(
    config: &Config,
    address: &Address,
    said: Option<ContentHash>,
) -> anyhow::Result<CertificateDer<'static>> {
    let known = match said {
        Some(hash) => Some(hash),
        None => config.known_ca(&address.to_string())?.map(|ca| ContentHash::of(&ca)),
    };
    let hash = known.ok_or_else(|| {
        let what = format!("this machine does not know the CA of the cloud at {address} yet");
        hinted(what, "say which it is with --ca SHA256; on the cloud: outrigger-cloud ca show")
    })?;
    learn_ca(address, hash)
}

/// What the browser has to bring back.
fn state_of(url: &str) -> String {
    Answer::of_query(url.split_once('?').map_or("", |(_, query)| query)).state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_that_of_the_address() {
        assert_eq!(state_of("https://id.example/auth?tenant=1&state=a%2Db&nonce=n"), "a-b");
        assert_eq!(state_of("https://id.example/auth"), "");
    }
}
