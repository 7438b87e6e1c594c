//! `outrigger-agent install`: from a token to a service that runs, in one step that can be repeated.
//!
//! Configuration, enrolment, files, service: each is left as it is where it is there already, but
//! program and unit, which are brought up to date.

use super::steps::Steps;
use super::{enrol, hinted};
use crate::config::Config;
use crate::identity::{Enrolment, IdentityFiles};
use crate::service::{Layout, STATE_DIR, ServiceError, Systemd, create_user, give_to_user};
use anyhow::Context;
use models::ort_backend::find_library;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `install`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cloud to join.
    #[arg(long, value_name = "HOST:PORT")]
    cloud: String,
    /// A file with the one-time token, or - for standard input; not needed on a device that is
    /// enrolled already.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    steps: Steps,
}

/// Where an installation lives.
#[derive(clap::Args)]
pub(super) struct Places {
    /// Folder of this device's key, certificate, models and configuration (agent.toml).
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Program and library go to bin/ and lib/outrigger/ in this folder.
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Another system's root folder, for example that of an image: everything goes below it, and
    /// nothing is started.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Places {
    pub(super) fn layout(&self) -> anyhow::Result<Layout> {
        Layout::new(&self.root, &self.prefix, &self.state_dir).map_err(|e| explain(&e))
    }
}

/// The error with its hint.
pub(super) fn explain(error: &ServiceError) -> anyhow::Error {
    hinted(protocol::problem::chain(error), error.hint())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let layout = args.places.layout()?;
    let state_dir = layout.state_dir();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let config = Config::read(&state_dir.join("agent.toml"))?;
    let library = find_library(config.runtime.library.as_deref())?;
    if let Some(written) = layout.write_configuration().map_err(|e| explain(&e))? {
        args.steps.wrote(&written);
    }
    join(args, &state_dir)?;
    let packaged = layout.is_packaged(&program);
    if !packaged {
        place(&layout, &program, &library, &args.steps).map_err(|e| explain(&e))?;
    }
    if start(&layout).map_err(|e| explain(&e))? {
        let sentence = "the service outrigger-agent runs, and starts with the system";
        args.steps.tell(sentence, "started", "outrigger-agent");
    } else {
        let installed = if packaged { program } else { layout.program() };
        say_how_by_hand(&installed, &layout);
    }
    Ok(ExitCode::SUCCESS)
}

/// Enrols this device, unless it is a member of that fleet already.
fn join(args: &Args, state_dir: &Path) -> anyhow::Result<()> {
    let files = IdentityFiles::new(state_dir);
    match files.enrolment()? {
        Some(Enrolment { device, cloud, .. }) if cloud == args.cloud => {
            let sentence = format!("enrolled already, as {device} at {cloud}");
            let subject = json!({ "device": device, "cloud": cloud });
            args.steps.tell(&sentence, "enrolled-already", subject);
            Ok(())
        }
        Some(Enrolment { device, cloud, .. }) => {
            let what = format!("this device is enrolled already, as {device} at {cloud}");
            let hint = format!(
                "to move it to another fleet, first: outrigger-agent unenrol --yes --state-dir {}",
                state_dir.display()
            );
            Err(hinted(what, hint))
        }
        None => {
            let token_file = args.token_file.as_deref().ok_or_else(|| {
                let hint = "--token-file FILE; a token comes from: outrigger device token";
                hinted("this device is not enrolled, and there is no token", hint)
            })?;
            enrol::join(&files, &args.cloud, token_file, &args.steps)?;
            Ok(())
        }
    }
}

fn place(
    layout: &Layout,
    program: &Path,
    library: &Path,
    steps: &Steps,
) -> Result<(), ServiceError> {
    for file in layout.place(program, library)?.files {
        steps.wrote(&file);
    }
    Ok(())
}

/// Starts the service where systemd runs; whether it did.
fn start(layout: &Layout) -> Result<bool, ServiceError> {
    let Some(systemd) = Systemd::running().filter(|_| layout.is_this_system()) else {
        return Ok(false);
    };
    create_user(&layout.state_dir())?;
    give_to_user(&layout.state_dir())?;
    systemd.start()?;
    Ok(true)
}

fn say_how_by_hand(program: &Path, layout: &Layout) {
    if !layout.is_this_system() {
        eprintln!("note: nothing was started, since this is another system's root. There, once:");
        eprintln!("      outrigger-agent install with the same --cloud; it keeps what is here.");
        return;
    }
    let state_dir = layout.state_dir();
    eprintln!("note: systemd does not run this system, so nothing starts the agent. By hand:");
    eprintln!("      {} run --state-dir {}", program.display(), state_dir.display());
}
