//! The client of `protocol::tuf` as the public conformance suite wants to call it (its CLIENT-CLI.md), and
//! `cargo xtask prove tuf`, which runs that suite with this very program.

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use outrigger_tests::people::exit_code;
use outrigger_tests::tuf::{Client, Folder, suite};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-tuf")]
struct Args {
    /// Where trusted metadata are.
    #[arg(long, value_name = "DIR")]
    metadata_dir: Option<PathBuf>,
    /// Where the repository has its metadata.
    #[arg(long)]
    metadata_url: Option<String>,
    /// A target's path; may be said again.
    #[arg(long)]
    target_name: Vec<String>,
    /// Where the repository has its targets.
    #[arg(long)]
    target_base_url: Option<String>,
    /// Where targets go to.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Begin with a root that is trusted.
    Init {
        /// The file.
        trusted_root: PathBuf,
    },
    /// Bring the metadata up to date.
    Refresh,
    /// And download targets.
    Download,
    /// Run the public suite, from a copy of it.
    Suite {
        /// The copy's folder.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    if let What::Suite { folder } = &args.command {
        let (passed, all) = suite::run(folder, &std::env::current_exe()?)?;
        ensure!(passed == all && all > 0, "{passed} of {all} tests of the suite pass");
        println!("proven: {passed} of {all} tests of the public suite pass");
        return Ok(());
    }
    let folder = Folder::new(args.metadata_dir.as_deref().context("--metadata-dir is missing")?);
    if let What::Init { trusted_root } = &args.command {
        return folder.init(&std::fs::read(trusted_root)?);
    }
    let url = args.metadata_url.as_deref().context("--metadata-url is missing")?;
    let mut client = Client::refresh(&folder, url)?;
    if matches!(args.command, What::Download) {
        let base = args.target_base_url.as_deref().context("--target-base-url is missing")?;
        let into = args.target_dir.as_deref().context("--target-dir is missing")?;
        args.target_name.iter().try_for_each(|path| client.download(path, base, into))?;
    }
    Ok(())
}
