//! What holds only if it holds for long: the programs as they are released, run by `outrigger-bench`.

use std::process::ExitCode;

use crate::{onnxruntime, programs};

pub(super) fn prove(name: &str, short: bool) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let bench = programs::build_release("outrigger-bench")?;
    let mut options = vec![name.to_owned()];
    options.extend(short.then(|| "--short".to_owned()));
    Ok(programs::exec(programs::with_library(&bench, &library.path).args(options))?)
}
