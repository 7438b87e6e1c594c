//! Fetching a blob: by hash, from where the partial file ends, never faster than allowed, never
//! more than the signed length. What is here at the end has the signed hash, or is thrown away.

use crate::counters::Counters;
use ::link::connection::{Connection, RecvStream};
use ::link::durable;
use ::link::frames::{self, LinkError};
use protocol::id::ContentHash;
use protocol::transfer::{BlobRef, Download, TransferError};
use protocol::wire::{BlobHeader, BlobRequest};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

const PIECE_BYTES: usize = 64 << 10;

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the download is not what was signed")]
    Transfer(#[from] TransferError),
    #[error("cannot keep {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl FetchError {
    /// Whether trying again can help: a broken link or a full disk may pass, wrong bytes may too
    /// (the partial file is gone, the next attempt starts from zero).
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            FetchError::Disk { .. } => "is there space left in the state folder?",
            _ => "",
        }
    }
}

/// A place for partial downloads, named by content.
pub(crate) struct Incoming {
    folder: PathBuf,
    bytes_per_s: AtomicU64,
    counters: Arc<Counters>,
    alone: Mutex<BTreeMap<ContentHash, Weak<tokio::sync::Mutex<()>>>>,
}

impl Incoming {
    pub(crate) fn new(
        folder: PathBuf,
        bytes_per_s: u64,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        durable::create_private_folder(&folder)?;
        let bytes_per_s = AtomicU64::new(bytes_per_s);
        Ok(Self { folder, bytes_per_s, counters, alone: Mutex::default() })
    }

    /// To be held over a fetch, and until the file has its own place: models may share files, and
    /// two downloads must not write to one partial file.
    pub(crate) async fn alone(&self, blob: ContentHash) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(&blob).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(blob, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }

    /// The fastest from now on, also of downloads under way; 0 for as fast as it goes.
    pub(crate) fn set_rate(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Relaxed);
    }

    /// Fetches a blob and gives the path of the whole, verified file. A partial file that an
    /// earlier attempt left, even one that was killed, is continued.
    pub(crate) async fn fetch(
        &self,
        connection: &Connection,
        blob: BlobRef,
    ) -> Result<PathBuf, FetchError> {
        let whole = self.folder.join(blob.hash.to_string());
        let partial = self.folder.join(format!("{}.part", blob.hash));
        let result = self.continue_into(connection, blob, &partial).await;
        if let Err(FetchError::Transfer(error)) = &result
            && !matches!(error, TransferError::Incomplete { .. })
        {
            let _ = std::fs::remove_file(&partial); // worthless; the next attempt starts from zero
        }
        result?;
        durable::rename(&partial, &whole).map_err(disk(&whole))?;
        Ok(whole)
    }

    async fn continue_into(
        &self,
        connection: &Connection,
        blob: BlobRef,
        partial: &Path,
    ) -> Result<(), FetchError> {
        let mut download = Download::new(blob);
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(partial)
            .map_err(disk(partial))?;
        resume(&mut download, &mut file, partial)?;
        if download.remaining() > 0 {
            let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::from)?;
            let ask = BlobRequest { sha256: blob.hash.to_string(), offset: download.offset() };
            frames::send_last(&mut send, &ask, []).await?;
            let header: BlobHeader = frames::receive(&mut receive).await?;
            download.check_header(header.size_bytes, header.offset)?;
            self.pour(&mut receive, &mut download, &mut file, partial).await?;
        }
        file.sync_all().map_err(disk(partial))?;
        Ok(download.finish()?)
    }

    async fn pour(
        &self,
        receive: &mut RecvStream,
        download: &mut Download,
        file: &mut std::fs::File,
        partial: &Path,
    ) -> Result<(), FetchError> {
        let mut due = Instant::now();
        while download.remaining() > 0 {
            let Some(chunk) = receive.read_chunk(PIECE_BYTES).await? else {
                break; // finish() says that it is incomplete
            };
            download.take(&chunk)?;
            self.counters.received(chunk.len() as u64);
            file.write_all(&chunk).map_err(disk(partial))?;
            due = self.pace(due, chunk.len()).await;
        }
        Ok(())
    }

    /// Waits until a piece of `bytes`, after one that was due at `due`, is within the allowed
    /// rate. Piece by piece, because the rate may change between two.
    async fn pace(&self, due: Instant, bytes: usize) -> Instant {
        let bytes_per_s = self.bytes_per_s.load(Relaxed);
        if bytes_per_s == 0 {
            return Instant::now();
        }
        let due = due + Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        tokio::time::sleep_until(due.into()).await;
        due
    }
}

fn resume(
    download: &mut Download,
    file: &mut std::fs::File,
    path: &Path,
) -> Result<(), FetchError> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(disk(path))? {
            0 => return Ok(()),
            n => download.resume(&piece[..n])?,
        }
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Disk { path, source }
}
