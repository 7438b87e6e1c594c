//! The packages do what they promise: on a throw-away copy of this system (an overlay, in a mount
//! namespace of its own), so that nothing of it touches the real one.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo::run;
use crate::package::{PackageError, build, deb, tarball};
use crate::programs;

/// What is done in the copy; it stops at the first promise that is not kept.
const SCRIPT: &str = include_str!("package.sh");

pub(super) fn prove(short: bool) -> Result<(), PackageError> {
    if let Some(reason) = obstacle() {
        eprintln!("skipped: {reason}");
        return Ok(());
    }
    let profile = if short { "dev" } else { "dist" };
    let contents = build(profile)?;
    let programs = ["outrigger-cloud", "outrigger-cli"];
    let cloud = programs::build(&programs, "dev", "outrigger-cloud")?;
    let operator = cloud.with_file_name("outrigger");
    let work = env::temp_dir().join(format!("outrigger-prove-{}", std::process::id()));
    let result = in_folder(&work, || {
        let tarball = tarball::write(&contents, &work)?;
        let first = deb::write(&contents, profile, 1, &work)?;
        let second = deb::write(&contents, profile, 2, &work)?;
        let mut script = Command::new("unshare");
        script.args(["--mount", "sh", "-eu", "-c", SCRIPT, "prove-package"]);
        Ok(run(script.args([&*work, &tarball, &first, &second, &cloud, &operator]))?)
    });
    let _ = fs::remove_dir_all(&work); // a left-over is only wasted space
    result?;
    println!("proven: the packages install, run, upgrade and purge");
    Ok(())
}

fn in_folder(
    folder: &Path,
    work: impl FnOnce() -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    fs::create_dir_all(folder).map_err(|source| PackageError::Io {
        what: "make the folder",
        path: folder.to_owned(),
        source,
    })?;
    work()
}

/// Why this cannot be proven on this machine.
fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a .deb is for Linux".to_owned());
    }
    for tool in ["dpkg", "unshare", "mount", "chroot", "useradd"] {
        let found = env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
        if !found {
            return Some(format!("{tool} is not on the PATH"));
        }
    }
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]);
    let may = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!may.is_ok_and(|status| status.success()))
        .then(|| "only root may make a root of its own for the package".to_owned())
}
