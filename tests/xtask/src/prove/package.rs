//! The packages do what they promise: in a fresh Debian where debootstrap can make one, else on a
//! throw-away copy of this system; an overlay in a mount namespace of its own, so that nothing of it
//! touches the real one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
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
        let base = if short { Path::new("/").to_owned() } else { base(&work)? };
        let mut script = Command::new("unshare");
        script.args(["--mount", "sh", "-eu", "-c", SCRIPT, "prove-package"]);
        Ok(run(script.args([&*work, &tarball, &first, &second, &cloud, &operator, &base]))?)
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

/// The root that the copy starts from: a Debian with nothing in it but what every Debian has, so that
/// a dependency which the package does not name is missed; or else this system.
fn base(work: &Path) -> Result<PathBuf, PackageError> {
    if !on_path("debootstrap") {
        eprintln!("note: without debootstrap on the PATH, the root is a copy of this system");
        return Ok("/".into());
    }
    let mut sources = Command::new("apt-get");
    sources.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
    let listed = sources.output().map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8_lossy(&listed);
    let root = work.join("debian");
    let mut make = Command::new("debootstrap");
    make.arg("--variant=minbase");
    match listed.lines().next().and_then(|line| line.split_once(' ')) {
        Some((codename, mirror)) => make.arg(codename).arg(&root).arg(mirror),
        None => make.arg("stable").arg(&root),
    };
    run(make.stdout(Stdio::null()))?;
    eprintln!("  - a fresh Debian: {}", root.display());
    Ok(root)
}

fn on_path(tool: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
}

/// Why this cannot be proven on this machine.
fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a .deb is for Linux".to_owned());
    }
    for tool in ["dpkg", "unshare", "mount", "chroot", "useradd"] {
        if !on_path(tool) {
            return Some(format!("{tool} is not on the PATH"));
        }
    }
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]);
    let may = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!may.is_ok_and(|status| status.success()))
        .then(|| "only root may make a root of its own for the package".to_owned())
}
