//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod enrol;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod support_bundle;

use crate::config::default_state_dir;
use clap::Args;
use std::path::PathBuf;

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

/// Prints an error, its causes and its hint to stderr.
pub(crate) fn report(error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    eprintln!("error: {}", causes.join(": "));
    let hint = error.chain().find_map(|e| e.downcast_ref::<Hinted>());
    if let Some(hint) = hint.map(|h| &h.hint).filter(|h| !h.is_empty()) {
        eprintln!("hint: {hint}");
    }
}
