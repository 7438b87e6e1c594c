//! `cargo xtask prove compat`: the programs of the previous release beside those of this one.

use clap::Parser;
use outrigger_tests::compat::Previous;
use outrigger_tests::people::exit_code;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-compat")]
struct Args {
    /// The folder with the previous programs.
    #[arg(long, value_name = "DIR")]
    previous: PathBuf,
}

fn main() -> ExitCode {
    exit_code(Previous(Args::parse().previous).prove())
}
