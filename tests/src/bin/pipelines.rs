//! `cargo xtask prove pipelines`: real models on photos, sentences and sound, through the real agent.

use clap::Parser;
use outrigger_tests::people::exit_code;
use outrigger_tests::pipelines;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-pipelines")]
struct Args {
    /// The folder with the models.
    #[arg(long, value_name = "DIR")]
    models: PathBuf,
    /// A WAV file with speech.
    #[arg(long, value_name = "FILE")]
    speech: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit_code(pipelines::run(&args.models, args.speech.as_deref()))
}
