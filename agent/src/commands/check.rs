//! `outrigger-agent check`: what works on this device, what does not, and what to do about it.

use super::StateDir;
use crate::health::{Report, Subject, examine};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    /// The configuration; agent.toml in the state folder when absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    let config_file = args.config.clone().unwrap_or_else(|| state_dir.join("agent.toml"));
    let report: Report = examine(&Subject::read(&state_dir, &config_file));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report.to_json())?);
    } else {
        print!("{}", report.to_text());
    }
    Ok(ExitCode::from(report.exit_code()))
}
