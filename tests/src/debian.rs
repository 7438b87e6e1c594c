//! Programs of Debian's that nobody here wrote: those in PATH, or else out of their package, which is brought
//! into the cache folder by the system's own client and not installed.

use crate::python::cache_folder;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Tests that run side by side may want the same package: one of them brings it.
static BRINGING: Mutex<()> = Mutex::new(());

/// A program of a package. `None`, with the reason printed, where it cannot be had.
pub fn program(package: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed = std::env::split_paths(&path).map(|folder| folder.join(name));
    if let Some(found) = installed.find(|program| program.is_file()) {
        return Some(found);
    }
    let _alone = BRINGING.lock().unwrap_or_else(PoisonError::into_inner);
    match unpacked(package) {
        Ok(folder) => Some(folder.join("usr/bin").join(name)).filter(|program| program.is_file()),
        Err(why) => {
            println!("SKIPPED: no {name} of Debian's package {package}: {why:#}");
            None
        }
    }
}

fn unpacked(package: &str) -> anyhow::Result<PathBuf> {
    let folder = cache_folder()?.join("debian").join(package);
    if folder.exists() {
        return Ok(folder);
    }
    let work = tempfile::tempdir()?;
    run(Command::new("apt-get").args(["download", package]).current_dir(work.path()))?;
    let mut files = std::fs::read_dir(work.path())?.flatten().map(|entry| entry.path());
    let file = files.find(|file| file.extension().is_some_and(|end| end == "deb"));
    let file = file.ok_or_else(|| anyhow::anyhow!("nothing was brought"))?;
    let beside = folder.with_extension("part");
    let _ = std::fs::remove_dir_all(&beside);
    std::fs::create_dir_all(&beside)?;
    run(Command::new("dpkg").arg("-x").args([file.as_path(), Path::new(&beside)]))?;
    std::fs::rename(&beside, &folder)?;
    Ok(folder)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}
