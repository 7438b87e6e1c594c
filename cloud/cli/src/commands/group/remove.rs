//! `outrigger group remove`.

use protocol::id::GroupName;
use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `group remove`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The group; its devices stay as they are.
    #[arg(value_name = "NAME")]
    name: GroupName,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    client.send::<Value>("DELETE", &format!("/v1/groups/{}", args.name), &[])?;
    output::line(&format!("{} is forgotten", args.name));
    Ok(())
}
