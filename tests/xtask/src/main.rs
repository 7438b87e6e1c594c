//! The project's own command, `cargo xtask`: everything that a person or a machine does with a checkout.
//!
//! One file per command. `setup` brings ONNX Runtime, and the others begin with it, so that each works on a fresh clone.
//! Data goes to stdout, progress and errors to stderr.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod demo;
mod onnxruntime;
mod programs;
mod setup;
mod test;

/// The project's own command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Demo(demo::Args),
    Test(test::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    Ok(match command {
        Command::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS)?,
        Command::Demo(args) => demo::run(&args)?,
        Command::Test(args) => test::run(&args).map(|()| ExitCode::SUCCESS)?,
        Command::Bench(args) => bench::run(&args)?,
    })
}

/// The error with its causes, then what the person can do now, where that is known.
fn tell(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    let hint =
        error.chain().find_map(|cause| cause.downcast_ref::<onnxruntime::SetupError>()?.hint());
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}
