//! Roll-outs through the real cloud, over simulated devices and real agents: the short form with programs as they are built
//! for tests.

use std::process::ExitCode;

use crate::{onnxruntime, programs};

pub(super) fn prove(short: bool) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let bench = programs::build_for_proof(short, "outrigger-bench")?;
    let mut command = programs::with_library(&bench, &library.path);
    Ok(programs::exec(command.arg("rollout-fleet").args(short.then_some("--short")))?)
}
