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
    #[serde(default)]
    person: Option<Person>,
}

#[derive(Deserialize)]
struct Person {
    subject: String,
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
        let ends = key.expires_at_s.map_or("never".to_owned(), |end_s| ends(end_s - now_s));
        let ends = if key.state == "live" { ends } else { "-".to_owned() };
        let models = key.models.join(" ");
        let signed_in = key.person.map_or("-".to_owned(), |person| person.subject);
        vec![key.id, key.name, key.role, key.tenant, models, key.state, ends, used, signed_in]
    };
    let header =
        ["key", "name", "role", "tenant", "models", "state", "ends", "last used", "signed in"];
    output::table(&header, keys.into_iter().map(row).collect(), "There are no keys.");
    Ok(())
}

fn ends(left_s: i64) -> String {
    match left_s / 86_400 {
        0 | 1 => format!("in {} h", (left_s + 3599) / 3600),
        days => format!("in {days} days"),
    }
}
