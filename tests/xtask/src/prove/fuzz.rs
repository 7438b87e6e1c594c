//! Hostile ONNX files: no program, no network, no runtime.

use std::process::{Command, ExitCode};

use crate::programs;

pub(super) fn prove(short: bool) -> anyhow::Result<ExitCode> {
    let mut command =
        Command::new(programs::build(&["outrigger-tests"], "release", "outrigger-fuzz")?);
    Ok(programs::exec(command.args(short.then_some("--short")))?)
}
