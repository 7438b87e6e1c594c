//! What is taken back at once and for good, by its id: keys and tokens alike.

use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Arguments of the commands that take something back.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The id, as the list shows it: what stands before the first dot.
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Takes one back of those at `path` of the API; `list` is the command that shows them.
pub(crate) fn run(args: &Args, path: &str, list: &str) -> anyhow::Result<()> {
    let is_id = args.id.len() == 16 && args.id.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return Err(hinted(
            format!("{:?} is no id", args.id),
            format!("see what there is: {list}"),
        ));
    }
    let client = Client::open(&Config::open()?)?;
    let answer: Value = client.send("DELETE", &format!("{path}/{}", args.id), b"")?;
    match args.json {
        true => output::json(&answer),
        false => output::line(&format!("{} is revoked", args.id)),
    }
    Ok(())
}
