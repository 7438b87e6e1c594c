//! `outrigger key revoke`.

use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Arguments of `key revoke`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The key's id, as `outrigger key list` shows it.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let is_id = args.id.len() == 16 && args.id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        let what = format!("{:?} is no key's id", args.id);
        return Err(hinted(what, "see what there is: outrigger key list"));
    }
    let client = Client::open(&Config::open()?)?;
    let answer: Value = client.send("DELETE", &format!("/v1/keys/{}", args.id), b"")?;
    if args.json {
        output::json(&answer);
    } else {
        output::line(&format!("{} is revoked", args.id));
    }
    Ok(())
}
