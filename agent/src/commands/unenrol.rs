//! `outrigger-agent unenrol`: this device leaves its fleet and keeps its models.

use super::{StateDir, confirmed, explain_reset};
use crate::identity::IdentityFiles;
use crate::reset;
use std::process::ExitCode;

/// Arguments of `unenrol`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    /// Do it without being asked again.
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    // A damaged enrolment is a good reason to be here: it only has no name.
    let before = IdentityFiles::new(&state_dir).enrolment().ok().flatten();
    let name = before.as_ref().map_or("this device".to_owned(), |e| e.device.to_string());
    confirmed(args.yes, &format!("{name} would lose its key and certificate"))?;
    if !reset::unenrol(&state_dir).map_err(|e| explain_reset(&e))? {
        println!("this device is not enrolled");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{name} is no longer enrolled; models and configuration are kept");
    if let Some(before) = before {
        eprintln!(
            "note: the cloud at {} was not told; there: outrigger device deny {}",
            before.cloud, before.device
        );
    }
    Ok(ExitCode::SUCCESS)
}
