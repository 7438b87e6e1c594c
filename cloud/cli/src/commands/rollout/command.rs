//! `outrigger rollout approve`, `pause`, `resume` and `abort`.

use protocol::id::RolloutId;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of all of them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The roll-out.
    #[arg(value_name = "ID")]
    rollout: RolloutId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, command: &str) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let path = format!("/v1/rollouts/{}/commands", args.rollout);
    let body = json!({ "command": command }).to_string();
    let answer: Value = client.send("POST", &path, body.as_bytes())?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let phase = answer["phase"].as_str().unwrap_or_default();
    output::line(&format!("{} is {phase}", args.rollout));
    Ok(())
}
