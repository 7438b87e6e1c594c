//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod enrol;
pub(crate) mod factory_reset;
pub(crate) mod install;
mod local;
pub(crate) mod quarantine;
pub(crate) mod run;
pub(crate) mod status;
mod steps;
pub(crate) mod support_bundle;
pub(crate) mod unenrol;
pub(crate) mod uninstall;

use crate::config::default_state_dir;
use crate::lock::LockError;
use crate::reset::ResetError;
use clap::Args;
use std::path::PathBuf;
use steps::Steps;

/// Where the agent keeps what it must not lose.
#[derive(Args)]
pub(crate) struct StateDir {
    /// Folder of this device's key, certificate, models and configuration (agent.toml).
    #[arg(long = "state-dir", env = "OUTRIGGER_STATE_DIR", value_name = "DIR")]
    path: Option<PathBuf>,
}

impl StateDir {
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(default_state_dir)
    }
}

/// Arguments of what cannot be undone.
#[derive(Args)]
pub(crate) struct Irrevocable {
    #[command(flatten)]
    state_dir: StateDir,
    /// Do it without being asked again.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    steps: Steps,
}

/// An error at the edge of the program: what happened, why, and what to do.
#[derive(Debug)]
pub(crate) struct Hinted {
    what: String,
    hint: String,
}

impl std::fmt::Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Hinted {}

/// An error that says what the person can do now.
pub(crate) fn hinted(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted { what: what.into(), hint: hint.into() }.into()
}

fn explain_lock(error: &LockError) -> anyhow::Error {
    let hint = match error {
        LockError::Taken(_) => "stop it first: systemctl stop outrigger-agent, or end its process",
        LockError::Io { .. } => "run this as the user that the agent runs as, or as root",
    };
    hinted(protocol::problem::chain(error), hint)
}

fn explain_reset(error: &ResetError) -> anyhow::Error {
    match error {
        ResetError::Lock(error) => explain_lock(error),
        ResetError::Foreign(_) => {
            hinted(error.to_string(), "the right folder is named with --state-dir")
        }
        ResetError::Identity(_) | ResetError::Remove { .. } => {
            let hint = "run this as the user that the agent runs as, or as root";
            hinted(protocol::problem::chain(error), hint)
        }
    }
}

/// What cannot be undone is done only when it was meant.
fn confirmed(yes: bool, what: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    Err(hinted(format!("{what}, and that cannot be undone"), "if this is meant: --yes"))
}

/// Prints an error, its causes and its hint to stderr.
pub(crate) fn report(error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("error: {}", causes.join(": "));
    let hint = error.chain().find_map(|e| e.downcast_ref::<Hinted>());
    if let Some(hint) = hint.map(|h| &h.hint).filter(|h| !h.is_empty()) {
        eprintln!("hint: {hint}");
    }
}
