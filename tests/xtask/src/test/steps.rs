//! What each step runs.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use super::tally::Tally;
use super::{Outcome, Step};
use crate::cargo::{RunError, cargo, finished, program, run};
use crate::onnxruntime::{self, LIBRARY_VARIABLE, SetupError};

/// Warnings are errors for the workspace's own code; those of dependencies are not shown by cargo anyway.
const CLIPPY: [&str; 6] = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

/// With the tests, though they run later: programs alone would have other features of the same dependencies, which would
/// be built twice.
const PROGRAMS: [&str; 4] = ["build", "--workspace", "--bins", "--tests"];

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// What steps leave for later ones.
pub(super) struct Context<'a> {
    filters: &'a [String],
    library: Option<PathBuf>,
    /// Set once tests have run.
    pub(super) tally: Option<Tally>,
}

impl<'a> Context<'a> {
    pub(super) fn new(filters: &'a [String]) -> Self {
        Self { filters, library: None, tally: None }
    }

    pub(super) fn run(&mut self, step: Step) -> Result<Outcome, StepError> {
        match step {
            Step::Setup => self.setup()?,
            Step::Programs => run(&mut cargo(PROGRAMS))?,
            Step::Fmt => run(&mut cargo(["fmt", "--all", "--check"]))?,
            Step::Clippy => run(&mut cargo(CLIPPY))?,
            Step::Bare => bare()?,
            Step::Tests => self.tests()?,
            Step::Docs => docs()?,
            Step::Deny => return Ok(deny()?),
        }
        Ok(Outcome::Passed)
    }

    fn setup(&mut self) -> Result<(), SetupError> {
        let library = onnxruntime::bring()?;
        eprintln!("ONNX Runtime: {}", library.path.display());
        self.library = Some(library.path);
        Ok(())
    }

    /// All tests, also those behind a failure, so that the count is the whole count.
    fn tests(&mut self) -> Result<(), RunError> {
        let mut command = cargo(["test", "--workspace", "--no-fail-fast", "--"]);
        command.args(self.filters).envs(self.library.iter().map(|path| (LIBRARY_VARIABLE, path)));
        run_counted(&mut command, self.tally.insert(Tally::default()))
    }
}

/// Runs `command`, passes its output on as it comes, and counts test results in it.
fn run_counted(command: &mut Command, tally: &mut Tally) -> Result<(), RunError> {
    let name = program(command);
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| RunError::Start { program: name.clone(), source })?;
    let output = |source| RunError::Output { program: name.clone(), source };
    if let Some(stdout) = child.stdout.take() {
        pass_on(stdout, tally).map_err(output)?;
    }
    let status = child.wait().map_err(output)?;
    finished(command, status)
}

/// Tests may print anything, so lines are read as bytes.
fn pass_on(stdout: ChildStdout, tally: &mut Tally) -> std::io::Result<()> {
    let (mut lines, mut line) = (BufReader::new(stdout), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        tally.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    std::io::stdout().flush()
}

/// A build without pipelines is whole, and refuses what it cannot do.
fn bare() -> Result<(), RunError> {
    run(&mut cargo(["check", "--package", "outrigger-agent", "--no-default-features"]))?;
    let refused = ["--package", "outrigger-models", "--test", "without_pipelines"];
    run(cargo(["test", "--no-default-features"]).args(refused))
}

fn docs() -> Result<(), RunError> {
    let mut flags = std::env::var_os("RUSTDOCFLAGS").unwrap_or_default();
    flags.push(OsString::from(" -D warnings"));
    run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", flags))
}

fn deny() -> Result<Outcome, RunError> {
    let mut version = cargo(["deny", "--version"]);
    version.stdout(Stdio::null()).stderr(Stdio::null());
    if run(&mut version).is_err() {
        let reason = "cargo-deny is not installed (`cargo install cargo-deny --locked`)";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    run(&mut cargo(["deny", "check", "bans", "licenses", "sources"]))?;
    Ok(Outcome::Passed)
}
