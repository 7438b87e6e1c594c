//! `cargo xtask prove deadlines`: every answer inside its deadline, in virtual and in real time.

use clap::Parser;
use outrigger_tests::deadlines::{Amount, run};
use outrigger_tests::people::exit_code;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-deadlines")]
struct Args {
    /// Fewer requests: to see that it holds.
    #[arg(long)]
    short: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit_code(prove(if args.short { Amount::SHORT } else { Amount::WHOLE }))
}

fn prove(amount: Amount) -> anyhow::Result<()> {
    let report = run(amount)?;
    println!("{report}");
    report.check()?;
    println!("proven: no request was lost, answered twice, or answered late");
    Ok(())
}
