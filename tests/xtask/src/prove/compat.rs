//! The programs of the previous release, built from a work tree of its own under the target folder, beside those
//! of this one. Built once: the folder bears the commit's name.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::cargo::{RunError, root, run};
use crate::{onnxruntime, programs};

/// The previous release. There is none yet: what stands for 0.1 is the last commit before agents updated themselves.
const PREVIOUS: &str = "66d6d1c2c56868ff8051d8571fd9136ea5131491";
/// Its programs, and their packages.
const PROGRAMS: [(&str, &str); 3] = [
    ("outrigger-agent", "outrigger-agent"),
    ("outrigger-cloud", "outrigger-cloud"),
    ("outrigger", "outrigger-cli"),
];

/// The short form takes programs as they are built for tests, on both sides.
pub(super) fn prove(short: bool) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let profile = if short { "dev" } else { "release" };
    let program = programs::build_for_proof(short, "outrigger-compat")?;
    let target = program.ancestors().nth(2).context("the program lies in no target folder")?;
    let previous = previous(&target.join("previous"), profile)?;
    let mut compat = programs::with_library(&program, &library.path);
    Ok(programs::exec(compat.arg("--previous").arg(previous))?)
}

/// Builds the previous programs where that was not done; the folder that they are in.
fn previous(folder: &Path, profile: &str) -> anyhow::Result<PathBuf> {
    let tree = folder.join(PREVIOUS);
    if !tree.is_dir() {
        let known = git().args(["cat-file", "-e", &format!("{PREVIOUS}^{{commit}}")]).status()?;
        ensure!(known.success(), "commit {PREVIOUS} is not here; a shallow clone has no history");
        run(git().args(["worktree", "prune"]))?;
        run(git().args(["worktree", "add", "--force", "--detach"]).arg(&tree).arg(PREVIOUS))?;
    }
    let target = folder.join("target");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(&tree).args(["build", "--bins", "--profile", profile]);
    build.args(PROGRAMS.iter().flat_map(|(_, package)| ["-p", package]));
    run(build.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    let programs = target.join(if profile == "dev" { "debug" } else { profile });
    match PROGRAMS.iter().find(|(program, _)| !programs.join(program).is_file()) {
        Some((program, _)) => Err(RunError::NoSuchProgram { name: (*program).to_owned() }.into()),
        None => Ok(programs),
    }
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(root());
    git
}
