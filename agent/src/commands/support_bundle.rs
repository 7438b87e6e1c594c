//! `outrigger-agent support-bundle`: one file with what somebody else needs to help.

use super::StateDir;
use crate::support::{Sources, collect, write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `support-bundle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The archive to write, a .tar.gz with mode 0600.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    state_dir: StateDir,
    /// The configuration; agent.toml in the state folder when absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent's log; agent.log in the state folder, or the service's journal, when absent.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    let config_file = args.config.clone().unwrap_or_else(|| state_dir.join("agent.toml"));
    let sources = Sources { state_dir, config_file, log_file: args.log_file.clone() };
    let files = collect(&sources);
    write(&files, &args.output)?;
    for file in &files {
        println!("{:18} {:>8} bytes", file.name, file.text.len());
    }
    eprintln!(
        "written to {}; it holds no keys, but names and addresses: look before you pass it on",
        args.output.display()
    );
    Ok(ExitCode::SUCCESS)
}
