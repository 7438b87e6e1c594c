//! `outrigger key list`.

use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `key list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    name: String,
    role: String,
    tenant: String,
    models: Vec<String>,
    state: String,
    expires_at_s: Option<i64>,
    last_used_s: Option<i64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let keys = client.list("/v1/keys", "keys")?;
    if args.json {
        output::json(&keys);
        return Ok(());
    }
    let keys: Vec<Key> = serde_json::from_value(keys)?;
    let now_s = output::now_s();
    let row = |key: Key| {
        let used = key.last_used_s.map_or("never".to_owned(), |at_s| output::ago(at_s, now_s));
        let left_days = key.expires_at_s.map(|end_s| (end_s - now_s) / 86_400);
        let ends = left_days.map_or("never".to_owned(), |days| format!("in {days} days"));
        let ends = if key.state == "live" { ends } else { "-".to_owned() };
        vec![key.id, key.name, key.role, key.tenant, key.models.join(" "), key.state, ends, used]
    };
    let header = ["key", "name", "role", "tenant", "models", "state", "ends", "last used"];
    output::table(&header, keys.into_iter().map(row).collect(), "There are no keys.");
    Ok(())
}
