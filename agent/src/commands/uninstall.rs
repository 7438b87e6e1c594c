//! `outrigger-agent uninstall`: takes away what `install` brought, and no more.

use super::install::{Places, explain};
use super::steps::Steps;
use super::{explain_lock, explain_reset};
use crate::lock::StateLock;
use crate::reset;
use crate::service::{Layout, ServiceError, Systemd, remove_user};
use anyhow::Context;
use std::process::ExitCode;

/// Arguments of `uninstall`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    places: Places,
    /// Remove the state folder too, with identity, models and configuration, and the service's user.
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    steps: Steps,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let layout = args.places.layout()?;
    let receipt = layout.installed().map_err(|e| explain(&e))?;
    let systemd = Systemd::running().filter(|_| layout.is_this_system());
    if let Some(systemd) = &systemd {
        systemd.stop().map_err(|e| explain(&e))?;
    }
    let state_dir = layout.state_dir();
    if state_dir.is_dir() {
        // Also one that was started by hand; released at once, since purging takes it again.
        StateLock::take(&state_dir).map_err(|e| explain_lock(&e))?;
    }
    receipt.remove().map_err(|e| explain(&e))?;
    layout.remove_library_folder();
    for file in &receipt.files {
        args.steps.removed(file);
    }
    if let Some(systemd) = &systemd {
        systemd.reload().map_err(|e| explain(&e))?;
    }
    if args.purge {
        return purge(&layout, systemd.is_some(), &args.steps);
    }
    if state_dir.is_dir() {
        eprintln!("note: {} is kept; --purge removes it too", state_dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn purge(layout: &Layout, with_user: bool, steps: &Steps) -> anyhow::Result<ExitCode> {
    let state_dir = layout.state_dir();
    if state_dir.is_dir() {
        reset::factory_reset(&state_dir).map_err(|e| explain_reset(&e))?;
        std::fs::remove_dir(&state_dir)
            .with_context(|| format!("cannot remove {}", state_dir.display()))?;
        steps.removed(&state_dir);
    }
    let removed: Result<(), ServiceError> = if with_user { remove_user() } else { Ok(()) };
    removed.map_err(|e| explain(&e))?;
    Ok(ExitCode::SUCCESS)
}
