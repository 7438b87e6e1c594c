//! `cargo xtask prove telemetry`: what a device said to be recorded is in the store at the end, once, whoever is killed.

use clap::Parser;
use outrigger_tests::people::exit_code;
use outrigger_tests::telemetry::kills;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-telemetry-proof")]
struct Args {
    /// Fewer kills: to see that it holds.
    #[arg(long)]
    short: bool,
    /// How many agents are killed.
    #[arg(long)]
    kills: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let kills = args.kills.unwrap_or(if args.short { 20 } else { 1_000 });
    exit_code(run(kills))
}

fn run(kills: usize) -> anyhow::Result<()> {
    let report = kills::kill(kills)?;
    println!("{report}");
    report.check()?;
    println!("proven: no kill cost what was acknowledged, and nothing came twice");
    Ok(())
}
