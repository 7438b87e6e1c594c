//! `cargo xtask demo`: the whole system on this machine, in one command.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{onnxruntime, programs};

/// Build everything and run the demo: a cloud, devices and a rollout on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write what the demo measured to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the demo's data folder.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let demo = programs::build_release("outrigger-demo")?;
    let mut options = programs::json_args(args.json.as_deref());
    if args.keep {
        options.push("--keep".to_owned());
    }
    Ok(programs::exec(programs::with_library(&demo, &library.path).args(options))?)
}
