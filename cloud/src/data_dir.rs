//! The one folder that is the server: its layout, and the lock that keeps a second server out.
//!
//! ```text
//! D/ca/ca.key, ca.pem   the fleet CA            D/cloud.db        what the store keeps
//! D/admin.key           the first admin's key   D/blobs/ab/abc…   every pushed file, by hash
//! D/listening           the bound address       D/bundles/abc…/   bundles laid out for loading
//! D/lock                held while running      D/incoming/       uploads in progress
//! D/repository/         the repository's online keys
//! D/telemetry/          what devices recorded, sealed, and the keys of samples apart: in no backup
//! D/deltas/             files of bundles in fewer bytes: a cache, which may be deleted
//! D/node/               of an inference node: its key and certificate, and the fleet CA's
//! ```

use crate::admin_key;
use link::durable;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What makes a control node what it is, beside the database: this goes into backups. Everything else in
/// the folder is made anew at a start.
pub const KEPT: [&str; 5] = ["ca", "repository", "admin.key", "cloud.toml", "blobs"];

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or entered.
    #[error("cannot use the data folder {path}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another server runs on it.
    #[error("another server is running on the data folder {0}")]
    Locked(PathBuf),
}

/// The data folder, locked for this process.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where needed, and locks it.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(root: &Path) -> Result<Self, DataDirError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        durable::create_private_folder(root).map_err(failed(root))?;
        let path = root.join("lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        let data_dir = Self { root: root.to_owned(), _lock: lock };
        let kept = [
            data_dir.ca(),
            data_dir.node(),
            data_dir.repository(),
            data_dir.blobs(),
            data_dir.deltas(),
            data_dir.telemetry(),
        ];
        for folder in
            kept.into_iter().chain([data_dir.bundles(), data_dir.deltas(), data_dir.incoming()])
        {
            durable::create_private_folder(&folder).map_err(failed(&folder))?;
        }
        let with_keys = [data_dir.ca(), data_dir.node(), data_dir.repository()];
        for folder in with_keys.into_iter().chain([data_dir.root.clone()]) {
            durable::sweep(&folder).map_err(failed(&folder))?; // half-written keys
        }
        for folder in [data_dir.incoming(), data_dir.bundles()] {
            clear(&folder).map_err(failed(&folder))?;
        }
        Ok(data_dir)
    }

    /// The folder of the fleet CA.
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca")
    }

    /// The folder of the repository's online keys.
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("cloud.db")
    }

    /// The folder of blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The folder of deltas.
    pub fn deltas(&self) -> PathBuf {
        self.root.join("deltas")
    }

    /// What devices have recorded, and the keys of samples, apart from it.
    pub fn telemetry(&self) -> PathBuf {
        self.root.join("telemetry")
    }

    /// The folder of uploads in progress.
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// The folder of bundles that are laid out for as long as they are loaded.
    pub fn bundles(&self) -> PathBuf {
        self.root.join("bundles")
    }

    /// What makes this an inference node: its identity.
    pub fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// The first admin's key.
    pub fn admin_key(&self) -> PathBuf {
        self.root.join(admin_key::FILE)
    }

    /// The file with the bound address.
    pub fn listening(&self) -> PathBuf {
        self.root.join("listening")
    }
}

/// Removes what an earlier process left behind: uploads that it did not finish, models that it had loaded.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_cannot_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("d");
        let first = DataDir::open(&root).unwrap();
        assert!(matches!(DataDir::open(&root), Err(DataDirError::Locked(_))));
        drop(first);
        assert!(DataDir::open(&root).is_ok());
    }

    #[test]
    fn what_an_earlier_process_left_behind_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let laid_out = data_dir.bundles().join("abc");
        std::fs::create_dir(&laid_out).unwrap();
        for file in [laid_out.join("model.onnx"), data_dir.incoming().join("half")] {
            std::fs::write(file, "x").unwrap();
        }
        drop(data_dir);
        let data_dir = DataDir::open(folder.path()).unwrap();
        for cleared in [data_dir.bundles(), data_dir.incoming()] {
            assert_eq!(std::fs::read_dir(cleared).unwrap().count(), 0);
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_enter() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("d");
        let data_dir = DataDir::open(&root).unwrap();
        for path in [root.clone(), data_dir.ca(), data_dir.blobs()] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", path.display());
        }
    }
}
