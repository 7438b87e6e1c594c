//! `outrigger device token revoke`.

use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Arguments of `device token revoke`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The token's id: what stands before its first dot.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let is_id = args.id.len() == 16 && args.id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        let what = format!("{:?} is no token's id", args.id);
        return Err(hinted(what, "see what there is: outrigger device token list"));
    }
    let client = Client::open(&Config::open()?)?;
    let answer: Value = client.send("DELETE", &format!("/v1/tokens/{}", args.id), b"")?;
    match args.json {
        true => output::json(&answer),
        false => output::line(&format!("{} is revoked", args.id)),
    }
    Ok(())
}
