//! `cargo xtask prove fuzz`: hostile ONNX files end with an answer or a typed error.

use clap::Parser;
use outrigger_tests::fuzz::{Amount, run};
use outrigger_tests::people::exit_code;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "outrigger-fuzz")]
struct Args {
    /// Fewer cases: to see that it holds.
    #[arg(long)]
    short: bool,
    /// The number of the first case.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How long, instead of 30 minutes (1 with --short).
    #[arg(long)]
    minutes: Option<u64>,
}

fn main() -> ExitCode {
    exit_code(prove(&Args::parse()))
}

fn prove(args: &Args) -> anyhow::Result<()> {
    let amount = if args.short { Amount::SHORT } else { Amount::WHOLE };
    let time =
        args.minutes.map_or(amount.time, |minutes| Duration::from_secs(minutes.saturating_mul(60)));
    let tally = run(Amount { first: args.first, time, ..amount })?;
    println!(
        "proven: of {} hostile files {} were read and written as the same, {} refused by name, and none broke anything",
        tally.cases, tally.read, tally.refused
    );
    Ok(())
}
