//! `cargo xtask bench`: one measurement by its name.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{onnxruntime, programs};

/// Where the bench finds the agent, if not beside itself.
const AGENT_VARIABLE: &str = "OUTRIGGER_AGENT_PROGRAM";

/// Build everything and run one bench.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The bench's name.
    name: String,
    /// Measure for a short time: to see that it runs, not to publish.
    #[arg(long)]
    short: bool,
    /// Build the agent as it is shipped (minutes), and measure that one; for `footprint` its sizes too.
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
    let mut command = programs::with_library(&bench, &library.path);
    if args.dist {
        if args.name == "footprint" {
            let bare = shipped(&["--no-default-features"])?.metadata()?.len();
            options.extend(["--bare-bytes".to_owned(), bare.to_string()]);
        }
        command.env(AGENT_VARIABLE, shipped(&[])?); // in the place of the bare one
    }
    options.extend(programs::json_args(args.json.as_deref()));
    Ok(programs::exec(command.args(options))?)
}

/// The agent's program, built to be shipped with these options.
fn shipped(options: &[&str]) -> anyhow::Result<PathBuf> {
    Ok(programs::build_with(&["outrigger-agent"], "dist", options, "outrigger-agent")?)
}
