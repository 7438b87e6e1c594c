//! One process at a time works in a state folder. The folder itself is locked (advisory, released by
//! the system when the process ends in whatever way), so that no file is left behind.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why the folder is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("an agent works in {}", .0.display())]
    Taken(PathBuf),
    #[error("cannot lock {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The state folder is ours while this lives.
#[derive(Debug)]
pub(crate) struct StateLock(#[allow(dead_code)] File); // held, not read

impl StateLock {
    /// Takes the folder, which must exist, or says who has it.
    pub(crate) fn take(state_dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: state_dir.to_owned(), source };
        let folder = File::open(state_dir).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self(folder)),
            Err(TryLockError::WouldBlock) => Err(LockError::Taken(state_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_ends_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path()).unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(LockError::Taken(_))));
        drop(first);
        StateLock::take(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let absent = folder.path().join("absent");
        assert!(matches!(StateLock::take(&absent), Err(LockError::Io { .. })));
    }
}
