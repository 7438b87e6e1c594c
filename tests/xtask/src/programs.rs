//! The release programs: built together, so that they share their dependencies, and started with ONNX Runtime at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use crate::cargo::{RunError, cargo, finished, program};
use crate::onnxruntime::LIBRARY_VARIABLE;

/// The packages whose programs the demo and the benches start.
const PACKAGES: &[&str] =
    &["outrigger-agent", "outrigger-cloud", "outrigger-cli", "outrigger-tests"];

/// Without what the operator asks telemetry with: SQL over Parquet takes as long to build as all the rest.
const LEAN: &[&str] =
    &["--no-default-features", "--features", "outrigger-agent/default,outrigger-cloud/default"];

/// Builds the release programs and answers where the one called `name` is, in whatever target folder cargo uses.
pub(crate) fn build_release(name: &str) -> Result<PathBuf, RunError> {
    build_with(PACKAGES, "release", LEAN, name)
}

/// The same with all that is optional.
pub(crate) fn build_release_whole(name: &str) -> Result<PathBuf, RunError> {
    build(PACKAGES, "release", name)
}

/// The same as the first for a proof; its `short` form takes programs as they are built for tests.
pub(crate) fn build_for_proof(short: bool, name: &str) -> Result<PathBuf, RunError> {
    if short { build(PACKAGES, "dev", name) } else { build_release(name) }
}

/// Builds the programs of `packages` with cargo's `profile` and answers where the one called `name` is.
pub(crate) fn build(packages: &[&str], profile: &str, name: &str) -> Result<PathBuf, RunError> {
    build_with(packages, profile, &[], name)
}

/// The same with more options of `cargo build`.
pub(crate) fn build_with(
    packages: &[&str],
    profile: &str,
    options: &[&str],
    name: &str,
) -> Result<PathBuf, RunError> {
    let mut build =
        cargo(["build", "--profile", profile, "--message-format=json-render-diagnostics"]);
    build.args(options);
    build.args(packages.iter().flat_map(|package| ["-p", package])).stderr(Stdio::inherit());
    let output =
        build.output().map_err(|source| RunError::Start { program: program(&build), source })?;
    finished(&build, output.status)?;
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, name).ok_or_else(|| RunError::NoSuchProgram { name: name.to_owned() })
}

/// Where cargo's `messages` (one JSON object a line) say that the program `name` is.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut artifacts =
        messages.filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == name);
    artifacts.find_map(|artifact| artifact["executable"].as_str().map(PathBuf::from))
}

/// The program at `path`, told where ONNX Runtime is.
pub(crate) fn with_library(path: &Path, library: &Path) -> Command {
    let mut command = Command::new(path);
    command.env(LIBRARY_VARIABLE, library);
    command
}

/// Becomes that program where the system can do that, so that signals reach it; else waits for it and answers its exit code.
pub(crate) fn exec(command: &mut Command) -> Result<ExitCode, RunError> {
    become_it(command).map_err(|source| RunError::Start { program: program(command), source })
}

#[cfg(unix)]
fn become_it(command: &mut Command) -> Result<ExitCode, std::io::Error> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn become_it(command: &mut Command) -> Result<ExitCode, std::io::Error> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// `--json FILE`, as arguments, where it was given. Relative to the folder that the person is in.
pub(crate) fn json_args(file: Option<&Path>) -> Vec<String> {
    let Some(file) = file else { return Vec::new() };
    vec!["--json".to_owned(), file.to_string_lossy().into_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"{"reason":"compiler-artifact","target":{"name":"outrigger-demo","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"outrigger-agent"},"executable":"/t/release/outrigger-agent"}
{"reason":"compiler-artifact","target":{"name":"outrigger-demo"},"executable":"/t/release/outrigger-demo"}
{"reason":"build-finished","success":true}"#;

    #[test]
    fn the_program_is_where_cargo_says() {
        assert_eq!(
            executable(MESSAGES, "outrigger-demo"),
            Some(PathBuf::from("/t/release/outrigger-demo"))
        );
        assert_eq!(executable(MESSAGES, "outrigger-bench"), None);
    }
}
