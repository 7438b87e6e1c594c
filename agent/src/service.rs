//! The agent as a service of the system: where its files go, the systemd unit, the user it runs as.

mod layout;
mod systemd;
mod user;

pub(crate) use layout::Layout;
pub(crate) use systemd::Systemd;
pub(crate) use user::{create_user, give_to_user, remove_user};

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The name of the service, of its program and of the user it runs as.
pub(crate) const NAME: &str = "outrigger-agent";

/// The state folder of the service.
pub(crate) const STATE_DIR: &str = "/var/lib/outrigger-agent";

/// Why the service could not be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} must be an absolute path without spaces, quotes or % to stand in a unit file", .0.display())]
    AwkwardPath(PathBuf),
    #[error("the service cannot see {}: the unit hides /home, /root and temporary folders from it", .0.display())]
    HiddenPath(PathBuf),
    #[error("cannot start {program}")]
    Start { program: String, source: io::Error },
    #[error("`{command}` failed ({status}): {said}")]
    Failed { command: String, status: ExitStatus, said: String },
    #[error("there is no user {NAME} in /etc/passwd")]
    NoUser,
    #[error("{NAME} is not installed under {}", .0.display())]
    NotInstalled(PathBuf),
}

impl ServiceError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// What the person can do now.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "setting up a service needs root: sudo outrigger-agent ..."
            }
            Self::AwkwardPath(_) | Self::HiddenPath(_) => {
                "leave --state-dir out for /var/lib/outrigger-agent, or name a folder such as /srv/outrigger"
            }
            Self::Failed { command, .. } if command.starts_with("systemctl") => {
                "what the agent said: journalctl --unit outrigger-agent --lines 50"
            }
            Self::NotInstalled(_) => {
                "--prefix and --root must be those of the installation; one from a package goes with its package: apt remove outrigger-agent"
            }
            Self::Io { .. } | Self::Start { .. } | Self::Failed { .. } | Self::NoUser => "",
        }
    }
}

/// Runs a program of the system to its end.
fn run(program: &str, args: &[&str]) -> Result<(), ServiceError> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|source| ServiceError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let command = [&[program], args].concat().join(" ");
    Err(ServiceError::Failed { command, status: output.status, said })
}
