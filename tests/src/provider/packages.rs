//! Packages of Node.js that nobody here wrote.

use crate::python::cache_folder;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Tests that run side by side may want the same package: one of them brings it.
static MAKING: Mutex<()> = Mutex::new(());

/// A package with what it needs, kept between runs in the cache folder and named by its version.
pub(super) struct Packages(PathBuf);

impl Packages {
    /// The folder with this package. `None`, with the reason printed, when there is no Node.js, or no registry to get
    /// it from.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn with(package: &str) -> anyhow::Result<Option<Self>> {
        let folder = cache_folder()?.join("node").join(package.replace('/', "-"));
        let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if Command::new("node").arg("--version").output().is_err() {
            println!("SKIPPED: no node in PATH (Debian: apt install nodejs npm)");
            return Ok(None);
        }
        if folder.join("complete").exists() {
            return Ok(Some(Self(folder)));
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let installed = Command::new("npm")
            .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .arg("--prefix")
            .arg(&folder)
            .arg(package)
            .output();
        let problem = match installed {
            Ok(output) if output.status.success() => {
                std::fs::write(folder.join("complete"), package)?;
                return Ok(Some(Self(folder)));
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("SKIPPED: npm does not bring {package}: {}", problem.lines().next().unwrap_or(""));
        Ok(None)
    }

    /// Where `node_modules` is.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}
