//! `outrigger-agent factory-reset`: nothing is left in the state folder.

use super::{StateDir, confirmed, explain_reset};
use crate::reset;
use std::process::ExitCode;

/// Arguments of `factory-reset`.
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
    let place = state_dir.display();
    confirmed(
        args.yes,
        &format!("everything in {place} would be removed: identity, models, configuration"),
    )?;
    let removed = reset::factory_reset(&state_dir).map_err(|e| explain_reset(&e))?;
    match removed {
        0 => println!("{place} holds nothing"),
        _ => println!("{place} is empty now"),
    }
    Ok(ExitCode::SUCCESS)
}
