//! `outrigger rollout plan` and `outrigger rollout start`.

use serde::Deserialize;
use serde_json::Value;

use super::asked;
use super::view::span;
use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of both.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("rollout")))]
pub(crate) struct Args {
    #[command(flatten)]
    asked: asked::Args,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Draft {
    id: Option<String>,
    model: String,
    version: u64,
    target: String,
    devices: u64,
    stages: Vec<Stage>,
    too_old: u64,
    have_it: u64,
    approvals: u8,
}

#[derive(Deserialize)]
struct Stage {
    stage: u64,
    devices: u64,
    online: u64,
    soak_s: u64,
}

pub(crate) fn run(args: &Args, dry_run: bool) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = args.asked.body(&client, dry_run)?.to_string();
    let answer: Value = client.send("POST", "/v1/rollouts", body.as_bytes())?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let draft: Draft = serde_json::from_value(answer)?;
    draft.show();
    match (&draft.id, draft.approvals) {
        (Some(id), 0 | 1) => eprintln!("next: outrigger rollout watch {id}"),
        (Some(id), _) => eprintln!("next, somebody else: outrigger rollout approve {id}"),
        (None, _) => eprintln!("next: the same with start"),
    }
    Ok(())
}

impl Draft {
    fn show(&self) {
        let Self { model, version, target, devices, .. } = self;
        let id = self.id.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
        output::line(&format!("{id}{model}@{version} to {devices} devices (`{target}`)"));
        let row = |stage: &Stage| {
            let number = [stage.stage, stage.devices, stage.online].map(|n| n.to_string());
            [number.to_vec(), vec![span(stage.soak_s)]].concat()
        };
        let rows = self.stages.iter().map(row).collect();
        output::table(&["stage", "devices", "connected", "watched for"], rows, "");
        for (count, why) in [
            (self.have_it, "have the version already"),
            (self.too_old, "are left out: their agent is too old"),
        ] {
            if count > 0 {
                output::line(&format!("{count} more {why}"));
            }
        }
        if self.approvals > 1 {
            output::line(&format!("{} people have to agree", self.approvals));
        }
    }
}
