//! Everything that a control node is, in one encrypted file; and a control node out of it.
//!
//! [`create()`] reads beside a running server: a snapshot of the database
//! ([`crate::store::beside`]) and the files that [`crate::data_dir::KEPT`] names, through the layout in `archive` into the sealed stream of [`seal`].
//! [`restore()`] lays a folder out beside, believes it once the stream was authenticated to its end and
//! every blob has its hash, makes void what an old state must not bring back, and puts the folder into its
//! place by one rename. Whatever fails leaves nothing behind.

use protocol::id::ContentHash;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

use crate::ca::CaError;
use crate::store::StoreError;
use crate::store::backup::VoidError;

mod archive;
mod create;
mod restore;
pub mod seal;
mod secret;

pub use create::create;
pub use restore::{Restored, Wanted, restore};
pub use seal::{SealError, Secret};
pub use secret::{SecretError, make_key, read_key, read_line, read_passphrase};

/// The database's name inside.
const DATABASE: &str = "cloud.db";
/// The description's name inside; it comes first.
const DESCRIPTION: &str = "backup.json";
/// The largest description.
const DESCRIPTION_MAX_BYTES: u64 = 64 << 10;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its number, 16 hexadecimal digits; in the audit log too.
    pub id: String,
    /// When it was made, in Unix seconds.
    pub made_at_s: i64,
    /// The version of the program that made it.
    pub program: String,
    /// SHA-256 of the fleet CA's certificate.
    pub ca_hash: ContentHash,
    /// How many devices there were.
    pub devices: u64,
    /// How many files it holds, and their bytes.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What would be overwritten.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// There is no server in the folder.
    #[error("{0} is no data folder of a server")]
    NoServer(PathBuf),
    /// An inference node.
    #[error("{0} belongs to an inference node, which has nothing of its own to back up")]
    InferenceNode(PathBuf),
    /// A bundle's file is not where it should be.
    #[error("the blob {0} is gone, which a pushed model needs")]
    BlobGone(ContentHash),
    /// The stream does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It opens, and its contents make no sense.
    #[error("the backup's contents make no sense: {0}")]
    Contents(String),
    /// Nobody by that name.
    #[error("the backup knows no device, node or key {0}, so it cannot be shut out")]
    Stranger(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The fleet CA.
    #[error(transparent)]
    Ca(#[from] CaError),
}

impl From<VoidError> for BackupError {
    fn from(error: VoidError) -> Self {
        match error {
            VoidError::Stranger(id) => Self::Stranger(id),
            VoidError::Store(error) => Self::Store(error),
        }
    }
}

impl BackupError {
    /// What a person can do now.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Exists(_) => {
                "name another place, or move away what is there; nothing was changed"
            }
            Self::NoServer(_) => "name the folder that outrigger-cloud serve --data-dir uses",
            Self::InferenceNode(_) => {
                "back up the control node; a lost node joins anew with a token"
            }
            Self::Seal(SealError::WrongSecret | SealError::OtherKind(_)) => {
                "name what it was sealed with: --key-file or --passphrase-file"
            }
            Self::Seal(SealError::Newer(_)) | Self::Store(StoreError::Newer { .. }) => {
                "use the outrigger-cloud that made it, or a later one"
            }
            Self::Seal(_) | Self::Contents(_) => {
                "nothing was restored; fetch the file again, or take another backup"
            }
            Self::Store(StoreError::Older { .. }) => {
                "start this version of the server once, or back up with the one that is running"
            }
            Self::Stranger(_) => "leave that one out: it does not exist in this backup",
            _ => "",
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { path, source }
}

/// An error of a stream whose own errors travel inside of [`io::Error`].
fn stream_error(path: &Path, error: io::Error) -> BackupError {
    match error.downcast::<SealError>() {
        Ok(error) => error.into(),
        Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            BackupError::Contents("a file in it is shorter than said".into())
        }
        Err(source) => BackupError::Io { path: path.to_owned(), source },
    }
}
