//! Every pushed file, named by its hash: written beside, hashed on the way, renamed when it proves
//! to be what it was announced as. A blob that is there is therefore right.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use link::durable;
use protocol::id::{ContentHash, Hasher};
use protocol::limits::BUNDLE_FILE_MAX_BYTES;
use protocol::manifest::Manifest;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;

pub(crate) mod chunks;

/// Why an upload was not kept.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The bytes have another hash than announced.
    #[error("the bytes have the hash {actual}, not {expected}: they were altered on their way")]
    WrongHash {
        /// As announced.
        expected: ContentHash,
        /// As received.
        actual: ContentHash,
    },
    /// More bytes than a file of a bundle may have.
    #[error("a file of a bundle has at most {BUNDLE_FILE_MAX_BYTES} bytes")]
    TooLarge,
    /// The sender went away.
    #[error("the upload broke off")]
    BrokenOff,
    /// The disk failed.
    #[error("cannot keep the blob")]
    Io(#[from] io::Error),
}

/// The folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
    incoming: PathBuf,
}

/// An upload in progress; the file goes when this does.
struct Incoming(PathBuf);

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // after success it is gone already
    }
}

impl Blobs {
    /// Blobs in `folder`, uploads in `incoming` on the same file system.
    pub fn new(folder: PathBuf, incoming: PathBuf) -> Self {
        Self { folder, incoming }
    }

    /// Where a blob lies.
    pub fn path(&self, hash: ContentHash) -> PathBuf {
        let name = hash.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    /// The size of a blob, `None` where it is absent.
    ///
    /// # Errors
    /// The disk's own.
    pub fn size_bytes(&self, hash: ContentHash) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.path(hash)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes blobs that nothing names any more. One that cannot be removed takes space and does no harm.
    pub fn remove(&self, blobs: &[ContentHash]) {
        for blob in blobs {
            let _ = std::fs::remove_file(self.path(*blob));
        }
    }

    /// Somebody counts on this blob: where nothing names it yet, its grace begins anew.
    pub fn touch(&self, hash: ContentHash) {
        if let Ok(file) = std::fs::File::open(self.path(hash)) {
            let _ = file.set_modified(std::time::SystemTime::now()); // then the grace is as it was
        }
    }

    /// Every blob, with what the file system says of it.
    ///
    /// # Errors
    /// The disk's own.
    pub fn all(&self) -> io::Result<Vec<(ContentHash, std::fs::Metadata)>> {
        let mut all = Vec::new();
        for folder in std::fs::read_dir(&self.folder)? {
            for entry in std::fs::read_dir(folder?.path())? {
                let entry = entry?;
                if let Ok(hash) = entry.file_name().to_string_lossy().parse() {
                    all.push((hash, entry.metadata()?));
                }
            }
        }
        Ok(all)
    }

    /// Takes a blob in; returns its size once it is durable.
    ///
    /// # Errors
    /// [`BlobError`]; nothing is kept then.
    pub async fn receive<E>(
        &self,
        expected: ContentHash,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, BlobError> {
        let beside = Incoming(self.incoming.join(hex::encode(link::entropy::<16>())));
        let (actual, size_bytes) = write(&beside.0, body).await?;
        if actual != expected {
            return Err(BlobError::WrongHash { expected, actual });
        }
        let path = self.path(expected);
        let kept = tokio::task::spawn_blocking(move || keep(&beside.0, &path)).await;
        kept.unwrap_or_else(|_| Err(io::Error::other("the server is stopping")))?;
        Ok(size_bytes)
    }

    /// Lays the files of a bundle out in a new folder of their own, as hard links where possible. They
    /// need not survive this process.
    ///
    /// # Errors
    /// The disk's own; also for a blob that is absent. Nothing is left behind.
    pub fn lay_out(&self, manifest: &Manifest, folder: PathBuf) -> io::Result<LaidOut> {
        std::fs::create_dir(&folder)?;
        let laid_out = LaidOut(folder);
        for (name, file) in &manifest.files {
            let (from, to) = (self.path(file.sha256), laid_out.folder().join(name));
            std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop))?;
        }
        Ok(laid_out)
    }
}

/// A bundle's files, as a model is loaded from them. They go when this does.
#[derive(Debug)]
pub struct LaidOut(PathBuf);

impl LaidOut {
    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for LaidOut {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // the next start removes what is left
    }
}

fn keep(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("."));
    durable::create_private_folder(folder)?;
    durable::rename(from, to)?;
    durable::sync_folder(folder.parent().unwrap_or(Path::new(".")))
}

async fn write<E>(
    path: &Path,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(ContentHash, u64), BlobError> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let (mut hasher, mut size_bytes) = (Hasher::default(), 0);
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| BlobError::BrokenOff)?;
        size_bytes += chunk.len() as u64;
        if size_bytes > BUNDLE_FILE_MAX_BYTES {
            return Err(BlobError::TooLarge);
        }
        hasher.update(&chunk);
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok((hasher.finish(), size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        blobs: &Blobs,
        expected: &[u8],
        pieces: Vec<Result<Bytes, ()>>,
    ) -> Result<u64, BlobError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = futures_util::stream::iter(pieces);
        runtime.block_on(blobs.receive(ContentHash::of(expected), body))
    }

    #[test]
    fn only_what_was_announced_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = folder.path().join("incoming");
        std::fs::create_dir(&incoming).unwrap();
        let blobs = Blobs::new(folder.path().join("blobs"), incoming.clone());
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));

        assert!(matches!(check(&blobs, b"abcd", vec![piece("ab"), piece("cd")]), Ok(4)));
        assert_eq!(blobs.size_bytes(ContentHash::of(b"abcd")).unwrap(), Some(4));
        assert_eq!(std::fs::read(blobs.path(ContentHash::of(b"abcd"))).unwrap(), b"abcd");

        let altered = check(&blobs, b"abc", vec![piece("abX")]);
        assert!(matches!(altered, Err(BlobError::WrongHash { .. })));
        let broken_off = check(&blobs, b"abc", vec![piece("ab"), Err(())]);
        assert!(matches!(broken_off, Err(BlobError::BrokenOff)));
        assert_eq!(blobs.size_bytes(ContentHash::of(b"abc")).unwrap(), None);
        assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
    }
}
