//! `outrigger logout`: a sign-in ends, and this machine forgets its key.

use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::errors::in_words;
use crate::output;

/// Arguments of `logout`.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let (credentials, ca) = config.login()?;
    let ended = credentials.ends_at_s.map(|_| {
        Client::new(&credentials, &ca).send::<Value>("DELETE", "/v1/sign-in", b"").map(drop)
    });
    config.forget_login()?;
    output::line(&format!("logged out of {}", credentials.cloud));
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            eprintln!(
                "note: the key of this sign-in ends by itself, and not yet: {}",
                in_words(&error)
            );
        }
        None => eprintln!(
            "note: the key itself goes on; an admin ends it: outrigger key revoke {}",
            credentials.key_id
        ),
    }
    Ok(())
}
