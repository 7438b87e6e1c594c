//! Every answer inside its deadline: the programs as they are released, run by `outrigger-deadlines`.

use std::process::ExitCode;

use crate::{onnxruntime, programs};

pub(super) fn prove(short: bool) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let proof = programs::build_release("outrigger-deadlines")?;
    let mut command = programs::with_library(&proof, &library.path);
    Ok(programs::exec(command.args(short.then_some("--short")))?)
}
