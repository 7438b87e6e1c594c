//! systemd, where it is the one that starts things.

use super::{NAME, ServiceError, run};
use std::path::Path;

/// A systemd that runs as PID 1.
pub(crate) struct Systemd(());

impl Systemd {
    /// The systemd that this system was started with, if it was (as sd_booted(3) finds out).
    pub(crate) fn running() -> Option<Self> {
        Path::new("/run/systemd/system").is_dir().then_some(Self(()))
    }

    /// Starts the service now, anew if it runs, and at each start of the system. Returns once it
    /// says that it is ready.
    pub(crate) fn start(&self) -> Result<(), ServiceError> {
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &["enable", "--quiet", NAME])?;
        run("systemctl", &["restart", NAME])
    }

    /// Stops the service, and has it no longer started.
    pub(crate) fn stop(&self) -> Result<(), ServiceError> {
        run("systemctl", &["disable", "--now", "--quiet", NAME])
    }

    /// Tells systemd that units came or went.
    pub(crate) fn reload(&self) -> Result<(), ServiceError> {
        run("systemctl", &["daemon-reload"])
    }
}
