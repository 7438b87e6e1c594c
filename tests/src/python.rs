//! Virtual environments with programs that nobody here wrote.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Tests that run side by side may want the same environment: one of them makes it.
static MAKING: Mutex<()> = Mutex::new(());

/// A virtual environment, kept between runs in the cache folder and named by what is in it.
pub struct Environment(PathBuf);

impl Environment {
    /// The environment with exactly these packages. `None`, with the reason printed, when there is
    /// no registry to get them from.
    ///
    /// # Errors
    /// No Python, or one without venv.
    pub fn with(packages: &[&str]) -> anyhow::Result<Option<Self>> {
        let name = protocol::id::ContentHash::of(packages.join(" ").as_bytes()).to_string();
        let folder = cache_folder()?.join("python").join(&name[..16]);
        let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let environment = Self(folder);
        if environment.0.join("complete").exists() {
            return Ok(Some(environment));
        }
        let _ = std::fs::remove_dir_all(&environment.0);
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment.0).output();
        check("python3 -m venv (install Python with venv)", &made.context("no python3 in PATH")?)?;
        let installed = environment
            .python()
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages)
            .output()?;
        if !installed.status.success() {
            let text = String::from_utf8_lossy(&installed.stderr);
            println!(
                "SKIPPED: no registry gives {packages:?}: {}",
                text.lines().last().unwrap_or("")
            );
            return Ok(None);
        }
        std::fs::write(environment.0.join("complete"), packages.join("\n"))?;
        Ok(Some(environment))
    }

    /// Its interpreter.
    pub fn python(&self) -> Command {
        Command::new(self.0.join("bin/python"))
    }

    /// A program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }

    /// The interpreter's version, for example `3.11`.
    ///
    /// # Errors
    /// It does not start.
    pub fn version(&self) -> anyhow::Result<String> {
        self.ask("import sys; print('%d.%d' % sys.version_info[:2])")
    }

    /// The folder with the packages.
    ///
    /// # Errors
    /// The interpreter does not start.
    pub fn packages(&self) -> anyhow::Result<PathBuf> {
        Ok(self.ask("import sysconfig; print(sysconfig.get_path('platlib'))")?.into())
    }

    fn ask(&self, program: &str) -> anyhow::Result<String> {
        let output = self.python().args(["-c", program]).output()?;
        check(program, &output)?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A script of tests/python, to be started.
    pub fn command(&self, script: &str) -> Command {
        let mut command = self.python();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script));
        command
    }

    /// Runs a script of tests/python; its stdout.
    ///
    /// # Errors
    /// It fails; with what it printed.
    pub fn run(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.command(script).args(arguments))
    }
}

/// What a program prints to stdout.
///
/// # Errors
/// It fails; with what it printed.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    check("the script", &output)?;
    Ok(String::from_utf8(output.stdout)?)
}

fn check(what: &str, output: &Output) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{what} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Where what is brought from elsewhere is kept between runs.
///
/// # Errors
/// There is no home folder.
pub(crate) fn cache_folder() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    Ok(cache.or(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("outrigger"))
}
