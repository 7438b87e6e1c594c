//! `outrigger repo sign`: names what was pushed as good.

use protocol::manifest::SignerKey;

use super::Signing;
use crate::client::Client;
use crate::config::{Config, SIGNING_KEY};
use crate::repository::{Remote, name, pushed};

/// Arguments of `repo sign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The public key of an operator whose bundles are named too, beside your own; repeatable.
    #[arg(long = "signer", value_name = "KEY", value_parser = parse_key)]
    signers: Vec<SignerKey>,
    #[command(flatten)]
    signing: Signing,
}

fn parse_key(text: &str) -> Result<SignerKey, String> {
    let key = hex::decode(text).ok().and_then(|bytes| SignerKey::from_slice(&bytes));
    key.ok_or_else(|| "an operator's key has 64 hexadecimal digits".to_owned())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let keys = args.signing.open_keys(&config)?;
    let own = config.key(SIGNING_KEY)?.map(|key| key.public());
    let operators: Vec<SignerKey> = own.into_iter().chain(args.signers.iter().copied()).collect();
    let (named, others) = pushed(&client, &operators)?;
    let files = name(&remote, &keys, &named, args.signing.expires_s())?;
    if others > 0 {
        eprintln!(
            "{others} bundles or builds were left out: none of these operators signed them (--signer KEY)."
        );
    }
    if files.is_empty() {
        eprintln!("All {} others were named before.", named.len());
        return Ok(());
    }
    args.signing.finish(&client, &remote, &files)?;
    Ok(())
}
