//! Power cuts: `outrigger-power-cut` does it, with programs as they are built for tests.

use std::process::Command;

use crate::cargo::run;
use crate::onnxruntime::{self, LIBRARY_VARIABLE};
use crate::programs;

pub(super) fn prove(short: bool) -> anyhow::Result<()> {
    let library = onnxruntime::bring()?;
    let program = programs::build_for_proof(short, "outrigger-power-cut")?;
    let mut command = Command::new(program);
    command.args(short.then_some("--short")).env(LIBRARY_VARIABLE, library.path);
    Ok(run(&mut command)?)
}
