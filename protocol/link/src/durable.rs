//! Files that are either the old or the new after a power cut, never a mixture: written beside,
//! synced, renamed, and the folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner (0600): keys, tokens, configuration with secrets.
    Private,
    /// Everybody, as the process's umask allows.
    Public,
}

/// Replaces the file at `path` by one with these bytes.
///
/// # Errors
/// The failing step's own error; the old file is untouched then.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let beside = temporary_name(path)?;
    let result = write_synced(&beside, bytes, access).and_then(|()| rename(&beside, path));
    if result.is_err() {
        let _ = fs::remove_file(&beside); // the first error is the one that matters
    }
    result
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("a path without a file name"))?;
    let suffix = format!(".{}.tmp", std::process::id());
    Ok(path.with_file_name([name, suffix.as_ref()].join(".".as_ref())))
}

/// Removes what [`write()`] left beside its files in a folder when it was interrupted, which may be a
/// key. Nobody may be writing there. How many files that were.
///
/// # Errors
/// The folder cannot be read, or a file not be removed.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_temporary(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
            swept += 1;
        }
    }
    if swept > 0 {
        sync_folder(folder)?;
    }
    Ok(swept)
}

/// Whether this is the name of a file that [`write()`] has not put into its place: `NAME.PID.tmp`.
pub fn is_temporary(name: &str) -> bool {
    let before = name.strip_suffix(".tmp").and_then(|rest| rest.rsplit_once('.'));
    before.is_some_and(|(name, process)| !name.is_empty() && process.parse::<u32>().is_ok())
}

fn write_synced(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    if access == Access::Private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    aside(|| file.sync_all())
}

/// Does what waits for the disk, for a second on a worn card, without holding up the other tasks of
/// this thread: where it is a worker of an async runtime, another thread takes them over.
pub fn aside<T>(wait: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor::MultiThread};
    let runtime = Handle::try_current();
    if runtime.is_ok_and(|runtime| runtime.runtime_flavor() == MultiThread) {
        return tokio::task::block_in_place(wait);
    }
    wait()
}

/// Renames and syncs the folder, so that the new name survives a power cut.
///
/// # Errors
/// The failing step's own error.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Syncs a folder's entries.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = File::open(folder)?;
    aside(|| folder.sync_all())
}

/// Syncs every file and folder below one, and itself.
///
/// # Errors
/// One cannot be read or synced.
pub fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => sync_tree(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    sync_folder(folder)
}

/// Makes a folder, and those above it, that only its owner may enter; once this returns they survive
/// a power cut.
///
/// # Errors
/// The folder cannot be made, or the one above it not be synced.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    let absent: Vec<&Path> = folder.ancestors().take_while(|f| !f.is_dir()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    let above = absent.iter().rev().filter_map(|made| made.parent());
    above.into_iter().try_for_each(sync_folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for text in ["old", "new"] {
            write(&path, text.as_bytes(), Access::Private).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(write(&folder.path().join("no/such/folder"), b"", Access::Public).is_err());
    }

    /// Each of them returns only when all are there: on one worker, if the others are not held up.
    #[test]
    fn who_waits_aside_holds_nobody_up() {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).build().unwrap();
        let all = std::sync::Arc::new(std::sync::Barrier::new(3));
        let wait = || {
            let all = all.clone();
            runtime.spawn(async move { aside(|| all.wait()) })
        };
        let tasks = [wait(), wait(), wait()];
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(aside(|| 7), 7, "outside of a runtime too");
    }

    #[test]
    fn only_interrupted_writes_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        create_private_folder(&folder.path().join("a/b.7.tmp")).unwrap();
        for name in ["key", "key.12.tmp", "device.pem.1.tmp", "letter.tmp", ".3.tmp", "x.y.tmp"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep(folder.path()).unwrap(), 2);
        assert_eq!(sweep(&folder.path().join("a")).unwrap(), 0, "a folder is not ours");
        for name in ["key", "letter.tmp", ".3.tmp", "x.y.tmp"] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        assert!(sweep(&folder.path().join("absent")).is_err());
    }
}
