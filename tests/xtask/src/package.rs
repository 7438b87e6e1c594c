//! `cargo xtask package`: the agent as a person gets it, a tar.gz and a .deb, each with ONNX Runtime in it.
//!
//! Both carry the same program, library, unit and licences; what differs is where they put them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cargo::{RunError, root};
use crate::onnxruntime::{self, SetupError};
use crate::programs;
use contents::Contents;

pub(crate) mod contents;
pub(crate) mod deb;
pub(crate) mod tarball;

/// Build the agent and pack it, with ONNX Runtime, as a tar.gz and a .deb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the packages go.
    #[arg(long, value_name = "DIR", default_value = "target/package")]
    out: PathBuf,
    /// The cargo profile to build with. `dist` is what is shipped, and slow to build.
    #[arg(long, value_name = "PROFILE", default_value = "dist")]
    profile: String,
    /// Pack only this; both when absent.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For any Linux: unpack it and run `bin/outrigger-agent install`.
    Tar,
    /// For Debian and what descends from it.
    Deb,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cargo-deb is not installed, and installing it failed")]
    NoCargoDeb(#[source] RunError),
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl PackageError {
    /// What the person can do now.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Setup(error) => error.hint(),
            Self::NoCargoDeb(_) => Some(
                "cargo install cargo-deb --locked; or leave the .deb out: cargo xtask package --format tar"
                    .to_owned(),
            ),
            Self::Run(_) | Self::Io { .. } => None,
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), PackageError> {
    let contents = build(&args.profile)?;
    let out = &args.out;
    fs::create_dir_all(out).map_err(PackageError::io("make the folder", out))?;
    if args.format != Some(Format::Deb) {
        println!("{}", tarball::write(&contents, out)?.display());
    }
    if args.format != Some(Format::Tar) {
        println!("{}", deb::write(&contents, &args.profile, 1, out)?.display());
    }
    Ok(())
}

/// Builds the agent and finds all that goes with it.
pub(crate) fn build(profile: &str) -> Result<Contents, PackageError> {
    let library = onnxruntime::bring()?.path;
    let notices = onnxruntime::notices()?;
    let program = programs::build(&["outrigger-agent"], profile, "outrigger-agent")?;
    let repository = root();
    let packaging = repository.join("agent/packaging");
    let mut documents = vec![repository.join("LICENSE"), packaging.join("agent.toml")];
    documents.push(packaging.join("outrigger-agent.service"));
    Ok(Contents { program, library, notices, documents })
}
