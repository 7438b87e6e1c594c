//! `outrigger group set`.

use fleet::rollout::query::Query;
use protocol::id::GroupName;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `group set`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The group.
    #[arg(value_name = "NAME")]
    name: GroupName,
    /// Whom it asks for, such as 'site=lyon AND gpu=none'.
    #[arg(value_name = "QUERY")]
    query: Query,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = json!({ "query": args.query }).to_string();
    let answer: Value =
        client.send("PUT", &format!("/v1/groups/{}", args.name), body.as_bytes())?;
    if args.json {
        output::json(&answer);
    } else {
        output::line(&format!("{} is `{}`", args.name, args.query));
    }
    Ok(())
}
