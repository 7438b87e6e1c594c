//! `outrigger rollout history`.

use serde_json::Value;

use super::one::Args;
use super::view::{Entry, Rollout};
use crate::client::Client;
use crate::config::Config;
use crate::output;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let mut answer: Value = client.get(&format!("/v1/rollouts/{}", args.rollout))?;
    if args.json {
        output::json(&answer["history"].take());
        return Ok(());
    }
    let rollout: Rollout = serde_json::from_value(answer)?;
    let row =
        |entry: &Entry| vec![when(entry.at_s), (entry.stage + 1).to_string(), entry.what.clone()];
    let rows = rollout.history.iter().map(row).collect();
    output::table(&["when (utc)", "stage", "what"], rows, "");
    Ok(())
}

/// A moment, as `2026-11-26 23:05:09`.
pub(super) fn when(at_s: i64) -> String {
    let text = protocol::tuf::date::format(at_s);
    text.trim_end_matches('Z').replace('T', " ")
}
