//! `outrigger node remove`.

use protocol::id::NodeId;
use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `node remove`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node, as `outrigger node list` shows it.
    #[arg(value_name = "ID")]
    node: NodeId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let answer: Value = client.send("DELETE", &format!("/v1/nodes/{}", args.node), b"")?;
    if args.json {
        output::json(&answer);
    } else {
        output::line(&format!("{} is removed", args.node));
    }
    Ok(())
}
