//! `outrigger node list`.

use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `node list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    name: String,
    address: String,
    state: String,
    version: String,
    requests_under_way: u64,
    devices: u64,
    models: u64,
    models_missing: u64,
    last_seen_s: Option<i64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let nodes = client.list("/v1/nodes", "nodes")?;
    if args.json {
        output::json(&nodes);
        return Ok(());
    }
    let nodes: Vec<Node> = serde_json::from_value(nodes)?;
    let now_s = output::now_s();
    let row = |node: Node| {
        let seen = node.last_seen_s.map_or("never".to_owned(), |at_s| output::ago(at_s, now_s));
        let state = if node.state == "away" { format!("away, seen {seen}") } else { node.state };
        let models = format!("{} of {}", node.models, node.models + node.models_missing);
        let (requests, devices) = (node.requests_under_way, node.devices);
        vec![
            node.id,
            node.name,
            node.address,
            state,
            node.version,
            devices.to_string(),
            requests.to_string(),
            models,
        ]
    };
    let header = ["node", "name", "address", "state", "version", "devices", "requests", "models"];
    output::table(&header, nodes.into_iter().map(row).collect(), "There are no inference nodes.");
    Ok(())
}
