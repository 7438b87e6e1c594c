//! Fetching a blob: by hash, from where the partial file ends, in as few bytes as there is a way to, never faster
//! or more than allowed, never more than the signed length. What is here at the end has the signed hash, or is
//! thrown away.

mod delta;
mod near;
mod partial;

pub(crate) use self::delta::Base;
use super::gate::{Gate, NotNow};
use super::{Uplink, UplinkError};
use crate::counters::Counters;
use crate::peers::Peers;
use ::link::connection::{Connection, RecvStream};
use ::link::durable;
use ::link::frames::{self, LinkError};
use partial::Partial;
use protocol::id::ContentHash;
use protocol::transfer::{BlobRef, ChunkHashes, TransferError};
use protocol::wire::{BlobForm, BlobHeader, BlobRequest};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::OwnedMutexGuard;

const PIECE_BYTES: usize = 64 << 10;
/// How long the cloud is waited for where peers may have the blob meanwhile.
const CLOUD_PATIENCE: Duration = Duration::from_secs(20);
/// What nobody asked for so long is not asked for any more.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the download is not what was signed")]
    Transfer(#[from] TransferError),
    #[error("nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error("cannot keep {}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("no connection to the cloud")]
    Uplink(#[source] Box<UplinkError>),
    #[error("the cloud is away, and no peer has it")]
    Away,
}

impl FetchError {
    /// Whether trying again can help: a broken link or a full disk may pass, wrong bytes may too
    /// (the partial file is gone, the next attempt starts from zero).
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            FetchError::Disk { .. } => "is there space left in the state folder?",
            FetchError::NotNow(_) => "[download] in agent.toml says when, and how much",
            _ => "",
        }
    }

    /// When trying again makes sense, where that is known.
    pub(crate) fn not_before(&self) -> Option<Duration> {
        match self {
            FetchError::NotNow(not_now) => Some(not_now.wait),
            _ => None,
        }
    }
}

/// A place for partial downloads, named by content.
pub(crate) struct Incoming {
    folder: PathBuf,
    gate: Arc<Gate>,
    /// Whom to ask before the cloud.
    peers: Option<Arc<Peers>>,
    counters: Arc<Counters>,
    alone: Mutex<BTreeMap<ContentHash, Weak<tokio::sync::Mutex<()>>>>,
}

impl Incoming {
    pub(crate) fn new(
        folder: PathBuf,
        (gate, peers): (Arc<Gate>, Option<Arc<Peers>>),
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        durable::create_private_folder(&folder)?;
        Ok(Self { folder, gate, peers, counters, alone: Mutex::default() })
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

    /// Fetches a blob and gives the path of the whole, verified file: from peers, as far as they have it; then from a
    /// base that is here, if the cloud has a delta from one, else packed, else as it is. A partial file that an
    /// earlier attempt left, even one that was killed, is continued.
    pub(crate) async fn fetch(
        &self,
        uplink: &Uplink,
        blob: BlobRef,
        bases: &[Base],
    ) -> Result<PathBuf, FetchError> {
        let whole = self.path(blob.hash, "");
        if self.fetch_near(uplink, blob, &whole).await? {
            return Ok(whole);
        }
        let connection = self.cloud(uplink).await?;
        let has_begun = self.path(blob.hash, ".part").exists();
        if !has_begun && self.fetch_delta(&connection, blob, bases, &whole).await? {
            return Ok(whole);
        }
        self.fetch_bytes(&connection, blob, &whole).await?;
        Ok(whole)
    }

    /// The cloud, waited for until it is there, unless a peer may be asked again meanwhile.
    async fn cloud(&self, uplink: &Uplink) -> Result<Arc<Connection>, FetchError> {
        let connected = async { uplink.bulk().await.map_err(|e| FetchError::Uplink(Box::new(e))) };
        match &self.peers {
            Some(peers) if !peers.is_alone() => {
                let connected = tokio::time::timeout(CLOUD_PATIENCE, connected).await;
                connected.unwrap_or(Err(FetchError::Away))
            }
            _ => connected.await,
        }
    }

    fn path(&self, blob: ContentHash, ending: &str) -> PathBuf {
        self.folder.join(format!("{blob}{ending}"))
    }

    /// Fetches the bytes themselves into their place.
    async fn fetch_bytes(
        &self,
        connection: &Connection,
        blob: BlobRef,
        whole: &Path,
    ) -> Result<(), FetchError> {
        let (part, chunks) = (self.path(blob.hash, ".part"), self.path(blob.hash, ".chunks"));
        let result = self.continue_into(connection, blob, &part, &chunks).await;
        self.gate.settle();
        self.put(result, blob, whole)
    }

    /// Puts what is here into its place, or away with what is worth nothing.
    fn put(
        &self,
        result: Result<(), FetchError>,
        blob: BlobRef,
        whole: &Path,
    ) -> Result<(), FetchError> {
        let (part, chunks) = (self.path(blob.hash, ".part"), self.path(blob.hash, ".chunks"));
        let keeps = match &result {
            Ok(()) => false,
            Err(FetchError::Transfer(error)) => error.keeps_partial(),
            Err(_) => true,
        };
        if !keeps {
            let _ = std::fs::remove_file(&chunks); // swept later
        }
        if result.is_err() && !keeps {
            let _ = std::fs::remove_file(&part); // worthless; the next attempt starts from zero
        }
        result?;
        durable::rename(&part, whole).map_err(disk(whole))
    }

    async fn continue_into(
        &self,
        connection: &Connection,
        blob: BlobRef,
        part: &Path,
        chunks: &Path,
    ) -> Result<(), FetchError> {
        let hashes = self.chunk_hashes(connection, &blob, chunks).await?;
        let mut partial = durable::aside(|| Partial::open(blob, hashes, part))?;
        while let Some(range) = partial.download.wanted() {
            let length = self.gate.permit(range.end - range.start)?;
            let ask = BlobRequest {
                sha256: blob.hash.to_string(),
                offset: range.start,
                length,
                ..Default::default()
            };
            let (header, mut receive) = self.ask(connection, &ask).await?;
            partial.download.check_header(header.size_bytes, header.offset)?;
            self.pour(&mut receive, &mut partial, range.start + length).await?;
        }
        durable::aside(|| partial.finish())
    }

    /// What the sender knows of the chunks: kept beside the partial file, so that a restart need not ask again.
    async fn chunk_hashes(
        &self,
        connection: &Connection,
        blob: &BlobRef,
        path: &Path,
    ) -> Result<Option<ChunkHashes>, FetchError> {
        if blob.chunks() < 2 {
            return Ok(None);
        }
        let kept = std::fs::read(path).ok();
        if let Some(hashes) = kept.and_then(|bytes| ChunkHashes::from_bytes(blob, &bytes)) {
            return Ok(Some(hashes));
        }
        let form = BlobForm::Chunks.into();
        let ask = BlobRequest { sha256: blob.hash.to_string(), form, ..Default::default() };
        let (header, mut receive) = self.ask(connection, &ask).await?;
        if header.form() != BlobForm::Chunks {
            return Ok(None); // an older cloud; its bytes are not read
        }
        let size = ChunkHashes::size_bytes(blob);
        if header.size_bytes != blob.size_bytes {
            let (expected, announced) = (blob.size_bytes, header.size_bytes);
            return Err(TransferError::WrongSize { expected, announced }.into());
        }
        let raw = self.patiently(frames::receive_raw(&mut receive, &[size])).await??;
        self.came(size);
        let raw = raw.into_iter().next().unwrap_or_default();
        std::fs::write(path, &raw).map_err(disk(path))?; // damage shows: then it is asked again
        Ok(ChunkHashes::from_bytes(blob, &raw))
    }

    /// Asks, and hears what follows.
    async fn ask(
        &self,
        connection: &Connection,
        request: &BlobRequest,
    ) -> Result<(BlobHeader, RecvStream), FetchError> {
        let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::from)?;
        frames::send_last(&mut send, request, []).await?;
        let header = self.patiently(frames::receive(&mut receive)).await??;
        Ok((header, receive))
    }

    /// What a sender that stands still does not hold up for ever.
    async fn patiently<T>(&self, wait: impl Future<Output = T>) -> Result<T, FetchError> {
        let stall = self.gate.stall();
        tokio::time::timeout(stall, wait).await.map_err(|_| FetchError::Stalled(stall))
    }

    /// Reads up to a place in the blob, or to where a damaged chunk ends, or the stream.
    async fn pour(
        &self,
        receive: &mut RecvStream,
        partial: &mut Partial,
        end: u64,
    ) -> Result<(), FetchError> {
        let mut due = Instant::now();
        while partial.download.offset() < end {
            let room = partial.download.room().min(end - partial.download.offset());
            let most = usize::try_from(room).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let Some(piece) = self.patiently(receive.read_chunk(most)).await?? else {
                return Ok(partial.download.finish()?); // says that it is incomplete
            };
            self.came(piece.len() as u64);
            if !partial.take(&piece)? {
                self.counters.chunk_damaged();
                return Ok(());
            }
            due = self.gate.pace(due, piece.len()).await;
        }
        Ok(())
    }

    fn came(&self, bytes: u64) {
        self.gate.spend(bytes);
        self.counters.downloaded(bytes);
    }

    /// Removes what is left of downloads that nobody has gone on with for a week: their version is no longer wanted.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
            if age > PARTIAL_KEPT {
                std::fs::remove_file(entry.path())?;
                self.counters.partial_swept();
            }
        }
        Ok(())
    }
}

fn disk(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Disk { path, source }
}
