//! `outrigger rollout approve`, `pause`, `resume` and `abort`.

use serde_json::{Value, json};

use super::one::Args;
use crate::client::Client;
use crate::config::Config;
use crate::output;

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
