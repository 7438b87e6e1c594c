//! `cargo xtask bench`: one measurement by its name.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{onnxruntime, programs};

/// Build everything and run one bench.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The bench's name.
    name: String,
    /// Measure for a short time: to see that it runs, not to publish.
    #[arg(long)]
    short: bool,
    /// For `footprint`: also build the programs as they are shipped (minutes), and measure their sizes.
    #[arg(long)]
    dist: bool,
    /// Write the results to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let bench = programs::build_release("outrigger-bench")?;
    let mut options = vec![args.name.clone()];
    if args.short {
        options.push("--short".to_owned());
    }
    if args.dist {
        options.push("--program-bytes".to_owned());
        options.push(shipped_bytes(&["--no-default-features"])?);
        options.push(shipped_bytes(&[])?);
    }
    options.extend(programs::json_args(args.json.as_deref()));
    Ok(programs::exec(&bench, &options, &library.path)?)
}

/// The size of the agent's program, built to be shipped with these options.
fn shipped_bytes(options: &[&str]) -> anyhow::Result<String> {
    let agent = programs::build_with(&["outrigger-agent"], "dist", options, "outrigger-agent")?;
    Ok(std::fs::metadata(agent)?.len().to_string())
}
