//! `outrigger audit`.

use protocol::id::ContentHash;
use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `audit`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many entries, newest first; 1000 at most.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Entry {
    at: String,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

/// A hash by its first digits; anything else as it is.
fn brief(text: &str) -> String {
    let is_hash = text.parse::<ContentHash>().is_ok();
    if is_hash { output::short(text) } else { text.to_owned() }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let entries = client.list(&format!("/v1/audit?limit={}", args.limit), "audit")?;
    if args.json {
        output::json(&entries);
        return Ok(());
    }
    let entries: Vec<Entry> = serde_json::from_value(entries)?;
    let row = |e: Entry| vec![e.at, e.actor, e.action, brief(&e.subject), brief(&e.detail)];
    let header = ["when", "who", "did", "to", "detail"];
    output::table(&header, entries.into_iter().map(row).collect(), "Nothing was changed yet.");
    Ok(())
}
