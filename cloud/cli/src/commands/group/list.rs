//! `outrigger group list`.

use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `group list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    query: String,
    devices: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let groups = client.list("/v1/groups", "groups")?;
    if args.json {
        output::json(&groups);
        return Ok(());
    }
    let groups: Vec<Group> = serde_json::from_value(groups)?;
    let row = |group: Group| vec![group.name, group.devices.to_string(), group.query];
    let rows = groups.into_iter().map(row).collect();
    output::table(&["group", "devices", "query"], rows, "There are no groups: outrigger group set");
    Ok(())
}
