//! Power cuts: `outrigger-power-cut` does it, with programs as they are built for tests.

use std::process::Command;

use crate::cargo::run;
use crate::onnxruntime::{self, LIBRARY_VARIABLE};
use crate::programs;

const PACKAGES: [&str; 4] =
    ["outrigger-agent", "outrigger-cloud", "outrigger-cli", "outrigger-tests"];

pub(super) fn prove(short: bool) -> anyhow::Result<()> {
    let library = onnxruntime::bring()?;
    let profile = if short { "dev" } else { "release" };
    let program = programs::build(&PACKAGES, profile, "outrigger-power-cut")?;
    let mut command = Command::new(program);
    command.args(short.then_some("--short")).env(LIBRARY_VARIABLE, library.path);
    Ok(run(&mut command)?)
}
