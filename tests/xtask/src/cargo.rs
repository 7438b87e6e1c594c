//! Cargo as this command starts it: the same cargo, in the workspace's root, with a clean environment.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a program that this command started did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    /// Its output could not be passed on.
    #[error("cannot pass on the output of {program}")]
    Output {
        program: String,
        #[source]
        source: std::io::Error,
    },
    /// It ran and failed; what it had to say, it has said.
    #[error("`{command}` failed ({status})")]
    Failed { command: String, status: std::process::ExitStatus },
    /// The build ended well, but made no such program.
    #[error("the build made no program `{name}`: it is not part of this checkout")]
    NoSuchProgram { name: String },
}

/// The workspace's root. Cargo names this package's folder when it runs this program; by hand, it is the current folder.
pub(crate) fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package
        .and_then(|folder| folder.ancestors().nth(2).map(Path::to_owned))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// `cargo ARGS`, not started yet.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_this_package(&name.to_string_lossy()))
    {
        command.env_remove(name);
    }
    command
}

/// Whether cargo set this variable to describe this very package. Some build scripts (ring's) watch them: passed on, they
/// would have half of the tree built again each time that `cargo xtask` and plain `cargo` take turns.
fn is_of_this_package(name: &str) -> bool {
    let exact = [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "OUT_DIR",
    ];
    exact.contains(&name) || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_PRIMARY_")
}

/// Runs `command` to its end, with this program's own stdin, stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<(), RunError> {
    let status =
        command.status().map_err(|source| RunError::Start { program: program(command), source })?;
    finished(command, status)
}

/// What the end of `command` means.
pub(crate) fn finished(
    command: &Command,
    status: std::process::ExitStatus,
) -> Result<(), RunError> {
    if status.success() { Ok(()) } else { Err(RunError::Failed { command: line(command), status }) }
}

/// The program of `command`, for a message.
pub(crate) fn program(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `command` as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program(command)).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_describes_this_package_is_removed() {
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_VERSION_MAJOR", "CARGO_PRIMARY_PACKAGE"] {
            assert!(is_of_this_package(name), "{name}");
        }
        for name in [
            "CARGO",
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_INCREMENTAL",
            "CARGO_TERM_COLOR",
            "PATH",
        ] {
            assert!(!is_of_this_package(name), "{name}");
        }
    }

    #[test]
    fn a_command_reads_as_it_is_typed() {
        let mut command = Command::new("/a/bin/cargo");
        command.args(["doc", "--no-deps"]);
        assert_eq!(line(&command), "cargo doc --no-deps");
    }
}
