//! `outrigger repo cosign`: one more signature on a draft; the last one publishes it.

use protocol::id::ContentHash;
use std::path::PathBuf;

use super::tell;
use crate::client::Client;
use crate::config::Config;
use crate::repository::{Draft, Keys, KeysArgs, Remote, publish};

/// Arguments of `repo cosign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The draft, which another command made with --draft.
    #[arg(value_name = "FILE")]
    draft: PathBuf,
    #[command(flatten)]
    keys: KeysArgs,
    /// The SHA-256 of a present file that none of your keys has signed, from somebody whose has; repeatable.
    #[arg(long = "on", value_name = "SHA256")]
    on: Vec<ContentHash>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let keys = Keys::open(&args.keys, &config)?;
    let mut draft = Draft::read(&args.draft)?;
    let roles: Vec<String> = draft.files.keys().cloned().collect();
    let mut missing = 0;
    for role in roles {
        let standing = draft.sign(&remote, &role, (&keys, &args.on))?;
        standing.changes.iter().for_each(|line| eprintln!("{line}"));
        if standing.missing > 0 {
            eprintln!("  {} more signatures are needed", standing.missing);
        }
        missing += standing.missing;
    }
    if missing > 0 {
        draft.write(&args.draft)?;
        eprintln!("signed; now it is others' turn: outrigger repo cosign {}", args.draft.display());
        return Ok(());
    }
    tell(&publish(&client, &draft.files, None)?, args.json);
    std::fs::remove_file(&args.draft)?;
    Ok(())
}
