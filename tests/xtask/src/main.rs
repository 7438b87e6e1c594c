//! The project's own command, `cargo xtask`: everything that a person or a machine does with a checkout.
//!
//! One file per command. `setup` brings ONNX Runtime, and the others begin with it, so that each works on a fresh clone.
//! Data goes to stdout, progress and errors to stderr.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod datasets;
mod demo;
mod onnxruntime;
mod package;
mod programs;
mod prove;
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
    Package(package::Args),
    Prove(prove::Args),
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
        Command::Package(args) => package::run(&args).map(|()| ExitCode::SUCCESS)?,
        Command::Prove(args) => prove::run(&args)?,
    })
}

/// The error with its causes, then what the person can do now, where that is known.
fn tell(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    let hint = error.chain().find_map(|cause| {
        let setup =
            cause.downcast_ref::<onnxruntime::SetupError>().and_then(onnxruntime::SetupError::hint);
        let pipelines = || cause.downcast_ref::<prove::pipelines::PipelinesError>()?.hint();
        setup.or_else(|| cause.downcast_ref::<package::PackageError>()?.hint()).or_else(pipelines)
    });
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}
