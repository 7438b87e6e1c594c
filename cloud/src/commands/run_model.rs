//! `outrigger-cloud run-model`: a worker of the server that starts it. Nobody else has a use for it.

use outrigger_cloud::workers;
use std::process::ExitCode;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    workers::run()?;
    Ok(ExitCode::SUCCESS)
}
