//! The .deb, packed by cargo-deb as `[package.metadata.deb]` in agent/Cargo.toml says.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PackageError;
use super::contents::{Contents, file_name};
use crate::cargo::{RunError, cargo, finished, program, root, run};
use crate::onnxruntime;

/// The cargo-deb that is installed where there is none.
const CARGO_DEB: &str = "3.8.0";

/// Writes the .deb of this `revision` into the folder `out` and answers its path.
pub(crate) fn write(
    contents: &Contents,
    profile: &str,
    revision: u32,
    out: &Path,
) -> Result<PathBuf, PackageError> {
    let mut deb = cargo_deb()?;
    stage(contents)?;
    let out = std::path::absolute(out).map_err(PackageError::io("resolve", out))?;
    let version = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
    deb.args(["--package", "outrigger-agent", "--no-build", "--no-strip", "--quiet"])
        .args(["--profile", profile, "--deb-version", &version, "--output"])
        .arg(format!("{}/", out.display()))
        .current_dir(root())
        .stderr(Stdio::inherit());
    let output =
        deb.output().map_err(|source| RunError::Start { program: program(&deb), source })?;
    finished(&deb, output.status)?;
    newest(&out, &version)
}

/// Lays out, beside the program, what cargo-deb is told to take from there.
fn stage(contents: &Contents) -> Result<(), PackageError> {
    let folder = contents.program.with_file_name("package");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(PackageError::io("remove", &folder))?;
    }
    let library = std::iter::once((&contents.library, "lib"));
    for (file, place) in library.chain(contents.notices.iter().map(|notice| (notice, "doc"))) {
        let folder = folder.join(place);
        fs::create_dir_all(&folder).map_err(PackageError::io("make the folder", &folder))?;
        let to = folder.join(file_name(file));
        fs::copy(file, &to).map_err(PackageError::io("write", &to))?;
    }
    Ok(())
}

/// The file that cargo-deb made; its name holds Debian's name of the architecture.
fn newest(out: &Path, version: &str) -> Result<PathBuf, PackageError> {
    let start = format!("outrigger-agent_{version}_");
    let entries = fs::read_dir(out).map_err(PackageError::io("read the folder", out))?;
    let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let found = paths.find(|p| file_name(p).starts_with(&start) && file_name(p).ends_with(".deb"));
    let absent = || PackageError::io("find the .deb in", out)(std::io::ErrorKind::NotFound.into());
    found.ok_or_else(absent)
}

/// cargo-deb: the person's own, or one in the cache folder, which is installed on first use.
fn cargo_deb() -> Result<Command, PackageError> {
    let works = |command: &mut Command| {
        let silent = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        silent.status().is_ok_and(|status| status.success())
    };
    if works(&mut cargo(["deb"])) {
        return Ok(cargo(["deb"]));
    }
    let folder = onnxruntime::cache_folder()?.join(format!("cargo-deb-{CARGO_DEB}"));
    let own = folder.join("bin").join(format!("cargo-deb{}", env::consts::EXE_SUFFIX));
    if !works(&mut Command::new(&own)) {
        install(&folder).map_err(PackageError::NoCargoDeb)?;
    }
    let mut command = Command::new(own);
    command.envs(env::var_os("CARGO").map(|cargo| ("CARGO", cargo)));
    Ok(command)
}

/// Its build has its own target folder, so that it disturbs no other.
fn install(folder: &Path) -> Result<(), RunError> {
    eprintln!("installing cargo-deb {CARGO_DEB} into {} (some minutes)", folder.display());
    let version = format!("={CARGO_DEB}");
    let mut command = cargo(["install", "cargo-deb", "--locked", "--version", &version, "--root"]);
    command.arg(folder).env("CARGO_TARGET_DIR", folder.join("target"));
    run(&mut command)?;
    let _ = fs::remove_dir_all(folder.join("target")); // a left-over is only wasted space
    Ok(())
}
