//! The programs that are kept: `programs/HASH` in the state folder, two at most. They belong to the agent's user
//! (0755), who has no rights beyond the state folder; what is in them is looked at again before each start.

use edge::takeover::Program;
use protocol::id::{ContentHash, Hasher};
use protocol::release::Mark;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "programs";
/// Has a program say what it is.
pub(crate) const SAY: &str = "say-what-this-is";
/// How long that may take.
const SAY_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a program is not begun with, or not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("is damaged")]
    Damaged,
    #[error("cannot be kept")]
    Keep(#[source] io::Error),
    #[error("cannot be run from {}: nothing can, on that file system (noexec)", .0.display())]
    NoExec(PathBuf),
    #[error("does not start on this machine")]
    Start(#[source] io::Error),
    #[error("did not say what it is: it ended with {0}")]
    Ended(ExitStatus),
    #[error("did not say what it is within {} s", SAY_PATIENCE.as_secs())]
    Hangs,
    #[error("says that it is {said:?}, and not {expected}")]
    Other { said: String, expected: Mark },
}

impl SlotError {
    /// What a person can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoExec(_) => {
                "mount the state folder's file system without noexec, or update by packages"
            }
            Self::Keep(_) => "is there space left in the state folder?",
            _ => "",
        }
    }

    /// Whether trying again can help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Keep(_) | Self::NoExec(_))
    }
}

/// The folder.
pub(crate) struct Slots(PathBuf);

impl Slots {
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join(FOLDER))
    }

    /// Where a program is, or would be.
    pub(super) fn path(&self, program: &Program) -> PathBuf {
        self.0.join(program.sha256.to_string())
    }

    /// Opens a program, which is what it should be. What is begun with is this open file: whatever takes its
    /// name afterwards is another one.
    pub(super) fn open(&self, program: &Program) -> Result<File, SlotError> {
        let mut file = File::open(self.path(program)).map_err(SlotError::Read)?;
        match hash(&mut file).map_err(SlotError::Read)? == program.sha256 {
            true => Ok(file),
            false => Err(SlotError::Damaged),
        }
    }

    /// Whether programs can be run from here: before anything is fetched.
    pub(super) fn check(&self) -> Result<(), SlotError> {
        ::link::durable::create_private_folder(&self.0).map_err(SlotError::Keep)?;
        let flags = statvfs(&self.0).map_err(|error| SlotError::Keep(error.into()))?.f_flag;
        match flags.contains(StatVfsMountFlags::NOEXEC) {
            true => Err(SlotError::NoExec(self.0.clone())),
            false => Ok(()),
        }
    }

    /// Takes a verified file in. It is durable when this returns.
    pub(super) fn take(&self, from: &Path, program: &Program) -> Result<(), SlotError> {
        let take = || {
            std::fs::set_permissions(from, Permissions::from_mode(0o755))?;
            File::open(from)?.sync_all()?;
            ::link::durable::rename(from, &self.path(program))
        };
        take().map_err(SlotError::Keep)
    }

    /// Has a program run once, beside this one, for as long as it takes to say what it is: whether it starts at
    /// all on this machine is known before anything ends for it. Blocks.
    pub(super) fn try_out(&self, program: &Program, expected: &Mark) -> Result<(), SlotError> {
        let file = self.open(program)?;
        let mut child = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .arg0(crate::service::NAME)
            .arg(SAY)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(SlotError::Start)?;
        let end = Instant::now() + SAY_PATIENCE;
        let status = loop {
            match child.try_wait().map_err(SlotError::Start)? {
                Some(status) => break status,
                None if Instant::now() >= end => {
                    let _ = child.kill(); // an error means that it ended already
                    let _ = child.wait();
                    return Err(SlotError::Hangs);
                }
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        let mut said = String::new();
        if let Some(out) = child.stdout.take() {
            let _ = out.take(256).read_to_string(&mut said); // what is no text is no mark
        }
        match said.trim_end() == expected.to_string() {
            true if status.success() => Ok(()),
            _ if !status.success() => Err(SlotError::Ended(status)),
            _ => Err(SlotError::Other { said, expected: expected.clone() }),
        }
    }

    /// Removes all but these.
    pub(super) fn sweep(&self, kept: &[Program]) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if !kept.iter().any(|program| *program.sha256.to_string() == *name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The hash of what a file holds from here on.
pub(crate) fn hash(file: &mut File) -> io::Result<ContentHash> {
    let (mut hasher, mut piece) = (Hasher::default(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::release::ReleaseVersion;

    fn slots() -> (tempfile::TempDir, Slots) {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::of(folder.path());
        slots.check().unwrap();
        (folder, slots)
    }

    fn keep(slots: &Slots, bytes: &[u8]) -> Program {
        let from = slots.0.with_file_name("from");
        std::fs::write(&from, bytes).unwrap();
        let version = ReleaseVersion::new(9, 0, 0);
        let program = Program { version, sha256: ContentHash::of(bytes) };
        slots.take(&from, &program).unwrap();
        program
    }

    #[test]
    fn what_is_damaged_is_not_opened_and_what_is_not_kept_goes() {
        let (_folder, slots) = slots();
        let (one, two) = (keep(&slots, b"one"), keep(&slots, b"two"));
        slots.open(&one).unwrap();
        std::fs::write(slots.path(&one), "other").unwrap();
        assert!(matches!(slots.open(&one), Err(SlotError::Damaged)));
        slots.sweep(std::slice::from_ref(&two)).unwrap();
        assert!(matches!(slots.open(&one), Err(SlotError::Read(_))));
        slots.open(&two).unwrap();
        assert_eq!(
            std::fs::metadata(slots.path(&two)).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    /// Other programs of this system: what they say is no mark.
    #[test]
    fn what_is_not_the_agent_is_found_out_before_it_takes_over() {
        let (_folder, slots) = slots();
        let expected: Mark = "9.0.0 x86_64-unknown-linux-gnu".parse().unwrap();
        let check = |file: &str| {
            let program = keep(&slots, &std::fs::read(file).unwrap());
            slots.try_out(&program, &expected).unwrap_err()
        };
        assert!(matches!(check("/bin/true"), SlotError::Other { said, .. } if said.is_empty()));
        assert!(matches!(check("/bin/false"), SlotError::Ended(_)));
        let text = keep(&slots, b"no program at all");
        assert!(matches!(slots.try_out(&text, &expected), Err(SlotError::Start(_))));
    }
}
