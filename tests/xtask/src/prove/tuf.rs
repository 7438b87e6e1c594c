//! The public TUF conformance suite, from a copy of it beside the project, and PyPI for what it needs.

use anyhow::Context;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::programs;

pub(super) fn prove(suite: Option<&Path>) -> anyhow::Result<ExitCode> {
    let suite = suite.context(
        "--suite is missing: git clone https://github.com/theupdateframework/tuf-conformance, and say where it is",
    )?;
    let program = programs::build(&["outrigger-tests"], "dev", "outrigger-tuf")?;
    Ok(programs::exec(Command::new(program).arg("suite").arg(suite))?)
}
