//! Python as a fetcher: pip knows the user's index, proxy and certificates, and `zipfile` opens the wheel.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::SetupError;

/// Names that Python 3 goes by, best first.
const NAMES: &[&str] = &["python3", "python"];

/// `argv`: wheel, member, destination.
const EXTRACT: &str = "import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as source, open(sys.argv[3], 'wb') as target:
    shutil.copyfileobj(source, target)";

/// How much of a failed command's stderr is shown, in lines.
const TAIL_LINES: usize = 8;

/// A Python 3 that has pip.
pub(crate) struct Python {
    name: &'static str,
}

impl Python {
    pub(crate) fn find() -> Result<Self, SetupError> {
        let works = |name: &&&str| {
            succeeds(
                Command::new(name).args(["-c", "import sys; sys.exit(sys.version_info < (3,))"]),
            )
        };
        let name = NAMES.iter().find(works).ok_or(SetupError::PythonMissing)?;
        if succeeds(Command::new(name).args(["-c", "import pip"])) {
            Ok(Self { name })
        } else {
            Err(SetupError::PipMissing)
        }
    }

    /// Fetches the wheel of `requirement` into `folder` and answers its path.
    pub(crate) fn download(&self, requirement: &str, folder: &Path) -> Result<PathBuf, SetupError> {
        let mut pip = Command::new(self.name);
        pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d"])
            .arg(folder)
            .arg(requirement);
        self.run("fetch ONNX Runtime from PyPI", &mut pip)?;
        let entries =
            std::fs::read_dir(folder).map_err(SetupError::io("read the folder", folder))?;
        let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        paths.find(|path| path.extension() == Some(OsStr::new("whl"))).ok_or(SetupError::NoWheel)
    }

    /// Writes the `member` of `wheel` to the file `target`.
    pub(crate) fn extract(
        &self,
        wheel: &Path,
        member: &str,
        target: &Path,
    ) -> Result<(), SetupError> {
        let mut python = Command::new(self.name);
        python.args(["-c", EXTRACT]).arg(wheel).arg(member).arg(target);
        self.run("unpack the wheel of ONNX Runtime", &mut python)
    }

    fn run(&self, what: &'static str, command: &mut Command) -> Result<(), SetupError> {
        let output = command.output().map_err(SetupError::io("start", Path::new(self.name)))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(SetupError::Python { what, stderr_tail: tail(&output) })
        }
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn tail(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if last.is_empty() {
        return format!("    (nothing; it ended with {})", output.status);
    }
    last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
