//! The public suite (theupdateframework/tuf-conformance), run from a copy of it beside the project.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

use crate::python::Environment;

/// What the suite needs of PyPI, in the versions that it names itself.
const PACKAGES: [&str; 4] =
    ["securesystemslib[crypto]==1.4.0", "tuf==7.0.0", "pytest==9.1.1", "pytest-json-report==1.5.0"];

/// Runs every test of the suite in `folder` against the client `program`: how many passed, of how many.
/// The outcome of the others is printed by pytest.
///
/// # Errors
/// The suite cannot run, or a test was expected to fail or left out.
pub fn run(folder: &Path, program: &Path) -> anyhow::Result<(u64, u64)> {
    ensure!(
        folder.join("tuf_conformance").is_dir(),
        "{} is no copy of the suite",
        folder.display()
    );
    let faketime = Command::new("faketime").arg("--version").output();
    faketime.context("no faketime in PATH (Debian: apt install faketime)")?;
    let Some(environment) = Environment::with(&PACKAGES)? else { bail!("no registry") };
    let reports = tempfile::tempdir()?;
    let report = reports.path().join("report.json");
    let mut pytest = environment.python();
    pytest.current_dir(folder).args([
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tuf_conformance",
    ]);
    pytest
        .arg("--entrypoint")
        .arg(program)
        .arg("--json-report")
        .arg("--json-report-file")
        .arg(&report);
    pytest.status()?;
    let report: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let summary = |name: &str| report["summary"][name].as_u64().unwrap_or(0);
    ensure!(summary("xfailed") + summary("skipped") == 0, "a test was left out");
    Ok((summary("passed"), summary("total")))
}
