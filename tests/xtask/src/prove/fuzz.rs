//! Hostile ONNX files: no program, no network, no runtime.

use std::process::{Command, ExitCode};

use crate::programs;

pub(super) fn prove(short: bool, minutes: Option<u64>) -> anyhow::Result<ExitCode> {
    let mut command =
        Command::new(programs::build(&["outrigger-tests"], "release", "outrigger-fuzz")?);
    command.args(short.then_some("--short"));
    let minutes = minutes.map(|minutes| ["--minutes".to_owned(), minutes.to_string()]);
    Ok(programs::exec(command.args(minutes.into_iter().flatten()))?)
}
