//! `outrigger rollout status`.

use protocol::id::RolloutId;
use serde::Deserialize;
use serde_json::Value;

use super::view::Rollout;
use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `rollout status`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The roll-out; all of them in a line each when absent.
    #[arg(value_name = "ID")]
    rollout: Option<RolloutId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Line {
    id: String,
    model: String,
    version: u64,
    target: String,
    phase: String,
    stage: u64,
    stages: u64,
    reason: String,
    planned_at_s: i64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    match &args.rollout {
        Some(id) => {
            let answer: Value = client.get(&format!("/v1/rollouts/{id}"))?;
            if args.json {
                output::json(&answer);
                return Ok(());
            }
            let rollout: Rollout = serde_json::from_value(answer)?;
            rollout.lines().iter().for_each(|line| output::line(line));
        }
        None => {
            let all = client.list("/v1/rollouts", "rollouts")?;
            if args.json {
                output::json(&all);
                return Ok(());
            }
            show(serde_json::from_value(all)?);
        }
    }
    Ok(())
}

fn show(all: Vec<Line>) {
    let now_s = output::now_s();
    let row = |line: Line| {
        vec![
            line.id,
            format!("{}@{}", line.model, line.version),
            line.target,
            line.phase,
            format!("{} of {}", line.stage, line.stages),
            output::ago(line.planned_at_s, now_s),
            if line.reason.is_empty() { "-".to_owned() } else { line.reason },
        ]
    };
    let rows = all.into_iter().map(row).collect();
    let header = ["roll-out", "model", "to", "phase", "stage", "planned", "why"];
    output::table(&header, rows, "There are no roll-outs yet: outrigger rollout start");
}
