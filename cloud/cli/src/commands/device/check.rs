//! `outrigger device check`.

use anyhow::bail;
use protocol::question::What;
use serde::Deserialize;

use super::ask::{Answer, How, Whom, ask};
use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `device check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    whom: Whom,
    /// Show what is well too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: How,
}

/// What `outrigger-agent check --json` says.
#[derive(Deserialize)]
struct Report {
    ok: bool,
    summary: String,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    group: String,
    name: String,
    outcome: String,
    detail: String,
    hint: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let mut answers = ask(&client, (&args.whom, &args.how), What::Check)?;
    let told: Vec<Answer> =
        answers.iter().cloned().map(serde_json::from_value).collect::<Result<_, _>>()?;
    let mut wrong: Vec<String> = told.iter().filter_map(Answer::absence).collect();
    let mut rows = Vec::new();
    for (answer, raw) in told.iter().zip(&mut answers) {
        if answer.absence().is_some() {
            continue;
        }
        raw["report"] = serde_json::from_str(&answer.text)?;
        let report: Report = serde_json::from_value(raw["report"].clone())?;
        if let Some(raw) = raw.as_object_mut() {
            raw.remove("text"); // it is the report
        }
        if !report.ok {
            wrong.push(format!("{}: {}", answer.device, report.summary));
        }
        rows.extend(report.rows(answer, args.all));
    }
    if args.how.json {
        output::json(&answers.into());
    } else {
        let header = ["device", "group", "check", "outcome", "detail", "what to do"];
        output::table(&header, rows, "All is well.");
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

impl Report {
    fn rows(&self, answer: &Answer, all: bool) -> Vec<Vec<String>> {
        let is_shown = |check: &&Check| all || !["ok", "skipped"].contains(&&*check.outcome);
        let row = |check: &Check| {
            let Check { group, name, outcome, detail, hint } = check;
            let device = answer.device.to_string();
            [&device, group, name, outcome, detail, hint].map(Clone::clone).into()
        };
        self.checks.iter().filter(is_shown).map(row).collect()
    }
}
