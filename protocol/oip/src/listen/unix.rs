//! A socket file: made for its owner and group only, in one step, and never in place of anything
//! else than a socket that nobody serves any more.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group may call.
const MODE: u32 = 0o660;
/// What the system takes as a socket's path, less the zero at its end and the ending of the
/// name under which a socket is made.
const PATH_MAX_BYTES: usize = 107 - NEW.len();
const NEW: &str = ".new";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Longer than the system takes.
    #[error("the path of a socket has at most {PATH_MAX_BYTES} bytes: {}", .0.display())]
    TooLong(PathBuf),
    /// Something else is there.
    #[error("{} is there and is no socket", .0.display())]
    Occupied(PathBuf),
    /// Somebody serves there.
    #[error("another process serves at {}", .0.display())]
    InUse(PathBuf),
    /// The system says no.
    #[error("cannot make the socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Binds; a socket that a killed process left behind is replaced.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        if path.as_os_str().len() > PATH_MAX_BYTES {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        Self::check_free(path).await?;
        let io = |source| SocketError::Io { path: path.to_owned(), source };
        let mut new = path.as_os_str().to_owned();
        new.push(NEW);
        let new = PathBuf::from(new);
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(io)?;
        // It gets its name only when nobody else may call any more.
        let permissions = std::fs::Permissions::from_mode(MODE);
        std::fs::set_permissions(&new, permissions).map_err(io)?;
        std::fs::rename(&new, path).map_err(io)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    async fn check_free(path: &Path) -> Result<(), SocketError> {
        let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
        if !there.file_type().is_socket() {
            return Err(SocketError::Occupied(path.to_owned()));
        }
        match UnixStream::connect(path).await {
            Ok(_) => Err(SocketError::InUse(path.to_owned())),
            Err(_) => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // What stays behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}
