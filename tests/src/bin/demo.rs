//! `cargo xtask demo`: the main job on real images, from an empty folder to a table, through an
//! outage and back.

use clap::Parser;
use outrigger_tests::people::{exit_code, write_json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-demo")]
struct Args {
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave cloud and agent running at the end and print their addresses.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let mut demo = outrigger_tests::demo::Demo::set_up()?;
    let report = demo.run()?;
    println!("{report}");
    write_json(args.json.as_deref(), &report.to_json())?;
    report.check()?;
    demo.finish(args.keep)
}
