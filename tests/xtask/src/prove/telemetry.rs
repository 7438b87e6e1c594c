//! Kills while telemetry is recorded and sent; power cuts are with the others, in `power-cut`.

use std::process::ExitCode;

use crate::{onnxruntime, programs};

pub(super) fn prove(short: bool) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let proof = programs::build_release("outrigger-telemetry-proof")?;
    let mut command = programs::with_library(&proof, &library.path);
    Ok(programs::exec(command.args(short.then_some("--short")))?)
}
