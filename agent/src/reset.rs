//! The way out of a fleet: the identity alone, or everything that the agent ever kept.

use crate::identity::{IdentityError, IdentityFiles};
use crate::lock::{LockError, StateLock};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What only an agent's state folder holds. A folder without any of these is somebody else's.
const MARKS: &[&str] = &["device.key", "device.key-uri", "enrolment.json", "state.db", "bundles"];

/// Why something is still there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResetError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{} is not an agent's state folder: nothing was removed", .0.display())]
    Foreign(PathBuf),
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// Removes key, certificate, fleet CA and trusted keys; models and configuration stay. Whether there
/// was an identity.
pub(crate) fn unenrol(state_dir: &Path) -> Result<bool, ResetError> {
    if !state_dir.is_dir() {
        return Ok(false);
    }
    let _lock = StateLock::take(state_dir)?;
    Ok(IdentityFiles::new(state_dir).remove()?)
}

/// Empties the state folder. How many entries were removed.
pub(crate) fn factory_reset(state_dir: &Path) -> Result<usize, ResetError> {
    if !state_dir.is_dir() {
        return Ok(0);
    }
    let _lock = StateLock::take(state_dir)?;
    let entries = entries(state_dir)?;
    if entries.is_empty() {
        return Ok(0);
    }
    if !MARKS.iter().any(|mark| state_dir.join(mark).exists()) {
        return Err(ResetError::Foreign(state_dir.to_owned()));
    }
    IdentityFiles::new(state_dir).remove()?; // first: after a power cut, half a device is no device
    let mark = state_dir.join("state.db");
    let (last, others): (Vec<_>, Vec<_>) = entries.iter().partition(|path| **path == mark);
    // The mark goes last, so that an interrupted reset can be repeated.
    for path in others.into_iter().chain(last) {
        remove(path).map_err(|source| ResetError::Remove { path: path.clone(), source })?;
    }
    Ok(entries.len())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ResetError> {
    let failed = |source| ResetError::Remove { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// A link is removed, never followed.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state folder with these files.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    fn left(folder: &tempfile::TempDir) -> Vec<String> {
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries(folder.path()).unwrap().into_iter().map(name).collect();
        names.sort();
        names
    }

    const WHOLE: &[&str] = &[
        "agent.toml",
        "bundles/ab/manifest.json",
        "ca.pem",
        "device.key",
        "device.pem",
        "enrolment.json",
        "listening",
        "state.db",
    ];

    #[test]
    fn unenrolled_the_models_and_the_configuration_stay() {
        let folder = folder(WHOLE);
        assert!(unenrol(folder.path()).unwrap());
        assert_eq!(left(&folder), ["agent.toml", "bundles", "listening", "state.db"]);
        assert!(!unenrol(folder.path()).unwrap(), "a second time there is nothing to do");
        assert!(!unenrol(&folder.path().join("absent")).unwrap());
    }

    #[test]
    fn after_a_factory_reset_nothing_is_left_and_links_are_not_followed() {
        let elsewhere = folder(&["photo"]);
        let folder = folder(WHOLE);
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("link")).unwrap();
        assert_eq!(factory_reset(folder.path()).unwrap(), WHOLE.len() + 1);
        assert_eq!(left(&folder), Vec::<String>::new());
        assert_eq!(left(&elsewhere), ["photo"]);
        assert_eq!(factory_reset(folder.path()).unwrap(), 0);
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let folder = folder(&["agent.toml", "letters/one"]);
        assert!(matches!(factory_reset(folder.path()), Err(ResetError::Foreign(_))));
        assert_eq!(left(&folder), ["agent.toml", "letters"]);
    }

    #[test]
    fn both_refuse_while_an_agent_works_there() {
        let folder = folder(WHOLE);
        let _lock = StateLock::take(folder.path()).unwrap();
        assert!(matches!(unenrol(folder.path()), Err(ResetError::Lock(LockError::Taken(_)))));
        assert!(matches!(factory_reset(folder.path()), Err(ResetError::Lock(LockError::Taken(_)))));
        assert_eq!(left(&folder).len(), WHOLE.len());
    }
}
