//! `cargo xtask bench NAME`: measurements beside a yardstick from the same run.

use anyhow::Context;
use clap::{Parser, ValueEnum};
use outrigger_tests::bench;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-bench")]
struct Args {
    /// What to measure.
    name: Name,
    /// A short form that ends within 60 s.
    #[arg(long)]
    short: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Local calls and deferrals beside in-process ONNX Runtime.
    Agent,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let report = match args.name {
        Name::Agent => bench::agent::run(args.short)?,
    };
    println!("{report}");
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
