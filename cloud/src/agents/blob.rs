//! Blobs for agents: only those of a bundle that the device should run, and only when nothing more
//! urgent is to be sent. Beside their bytes, what helps to fetch less of them: the hashes of their chunks, and
//! deltas, which are blobs themselves.

use bytes::{Bytes, BytesMut};
use fleet::background::Background;
use link::connection::{Connection, RecvStream, SendStream};
use link::frames::{self, LinkError};
use protocol::codec::FrameHeader;
use protocol::id::{ContentHash, InvalidName};
use protocol::limits::DELTA_BASES_MAX;
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::{self, BlobForm};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::answer_problem;
use super::session::{Session, StreamError};
use crate::deltas::Offer;
use crate::state::Cloud;

/// Read from the disk, and sent, at a time: little that stands together before an answer.
const CHUNK_BYTES: usize = 16 << 10;

/// How fast blobs go on one connection, all of them together: what the first has found out of the way,
/// the next need not.
pub(crate) struct Pace(Mutex<Background>);

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Background::new(Instant::now())))
    }
}

impl Pace {
    /// So many bytes were handed to this connection; when more may follow.
    fn sent(&self, bytes: usize, connection: &Connection) -> Instant {
        let mut background = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        background.handle_sent(bytes, connection.rtt(), Instant::now())
    }
}

/// Who gets blobs, and over what.
pub(crate) struct Asker<'a> {
    pub(crate) name: &'a (dyn std::fmt::Display + Sync),
    pub(crate) connection: &'a Connection,
    pub(crate) pace: &'a Pace,
}

/// Serves one blob stream.
pub(super) async fn serve(
    session: &Session,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let request: wire::BlobRequest = frames::message(&mut recv, header).await?;
    send.set_priority(Priority::Blob);
    let answered = match request.form() {
        BlobForm::Bytes => match open(session, &request).await {
            Ok(blob) => {
                let Session { cloud, device, connection, pace, .. } = session;
                return Ok(
                    pour(cloud, &Asker { name: device, connection, pace }, &mut send, blob).await?
                );
            }
            Err(problem) => Err(problem),
        },
        BlobForm::Chunks => chunks(session, &request).await,
        BlobForm::Delta => delta(session, &request).await.map(|header| (header, Bytes::new())),
    };
    match answered {
        Ok((header, raw)) => Ok(frames::send_last(&mut send, &header, [raw]).await?),
        Err(problem) => {
            session.cloud.events.blob_refused(&session.device, &problem);
            Ok(answer_problem(&mut send, &mut recv, problem).await?)
        }
    }
}

/// A blob that was granted, its file at the asked offset.
pub(crate) struct Open {
    hash: ContentHash,
    file: File,
    size_bytes: u64,
    offset: u64,
    /// How much of it is sent.
    length: u64,
}

/// A blob that the device may read.
struct Readable {
    hash: ContentHash,
    path: PathBuf,
    size_bytes: u64,
}

/// The blob of a request: a file of a bundle that the device should run, or a delta that makes one.
async fn readable(session: &Session, sha256: &str) -> Result<Readable, Problem> {
    let hash: ContentHash = sha256.parse().map_err(|error: InvalidName| {
        Problem::new(ProblemCode::InvalidRequest, error.to_string())
    })?;
    let cloud = &session.cloud;
    if let Some(size_bytes) = granted(session, hash).await? {
        return Ok(Readable { hash, path: cloud.blobs.path(hash), size_bytes });
    }
    let delta = cloud.deltas.find(hash);
    if let Some((path, size_bytes, target)) = delta
        && granted(session, target).await?.is_some()
    {
        return Ok(Readable { hash, path, size_bytes });
    }
    Err(absent())
}

async fn granted(session: &Session, hash: ContentHash) -> Result<Option<u64>, Problem> {
    let device = session.device.clone();
    let size = session.cloud.db.call(move |store| store.readable_blob(&device, hash)).await;
    size.map_err(|error| internal(&session.cloud, &error))
}

fn absent() -> Problem {
    let text = "no such blob in what the asker should run";
    Problem::new(ProblemCode::NotFound, text).hint("the assignment may have changed")
}

async fn open(session: &Session, request: &wire::BlobRequest) -> Result<Open, Problem> {
    let blob = readable(session, &request.sha256).await?;
    open_at(&session.cloud, blob, request).await
}

fn internal(cloud: &Cloud, error: &dyn std::error::Error) -> Problem {
    cloud.events.internal_error(error);
    Problem::new(ProblemCode::Internal, "the cloud cannot read the blob")
}

/// Opens a file of a cloud variant, of this size; `None` for one that the asker may not have.
pub(crate) async fn open_for_node(
    cloud: &Cloud,
    hash: ContentHash,
    size_bytes: Option<u64>,
    request: &wire::BlobRequest,
) -> Result<Open, Problem> {
    let size_bytes = size_bytes.ok_or_else(absent)?;
    open_at(cloud, Readable { hash, path: cloud.blobs.path(hash), size_bytes }, request).await
}

async fn open_at(
    cloud: &Cloud,
    blob: Readable,
    request: &wire::BlobRequest,
) -> Result<Open, Problem> {
    let Readable { hash, path, size_bytes } = blob;
    let offset = request.offset;
    let left = size_bytes.checked_sub(offset).ok_or_else(|| {
        let text = format!("offset {offset} of {size_bytes} bytes");
        Problem::new(ProblemCode::InvalidRequest, text)
    })?;
    let length = if request.length == 0 { left } else { left.min(request.length) };
    let file = File::open(path).await;
    let mut file = file.map_err(|error| internal(cloud, &error))?;
    file.seek(SeekFrom::Start(offset)).await.map_err(|error| internal(cloud, &error))?;
    Ok(Open { hash, file, size_bytes, offset, length })
}

/// The hashes of a blob's chunks.
async fn chunks(
    session: &Session,
    request: &wire::BlobRequest,
) -> Result<(wire::BlobHeader, Bytes), Problem> {
    let blob = readable(session, &request.sha256).await?;
    let size_bytes = blob.size_bytes;
    let (cloud, hash) = (session.cloud.clone(), blob.hash);
    let hashes = tokio::task::spawn_blocking(move || cloud.chunks.of(hash, &blob.path)).await;
    let hashes = hashes.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    let hashes = hashes.map_err(|error| internal(&session.cloud, &error))?;
    let form = BlobForm::Chunks.into();
    Ok((wire::BlobHeader { size_bytes, form, ..Default::default() }, hashes))
}

/// What there is of a blob in fewer bytes.
async fn delta(
    session: &Session,
    request: &wire::BlobRequest,
) -> Result<wire::BlobHeader, Problem> {
    let blob = readable(session, &request.sha256).await?;
    let mut bases = Vec::new();
    let named = request.bases.iter().take(DELTA_BASES_MAX).filter_map(|base| base.parse().ok());
    for base in named.collect::<Vec<ContentHash>>() {
        let related = move |store: &crate::store::Store| store.are_of_one_model(blob.hash, base);
        let related = session.cloud.db.call(related).await;
        if related.map_err(|error| internal(&session.cloud, &error))? {
            bases.push(base);
        }
    }
    let mut header = wire::BlobHeader {
        size_bytes: blob.size_bytes,
        form: BlobForm::Delta.into(),
        ..Default::default()
    };
    match session.cloud.deltas.offer(blob.hash, blob.size_bytes, &bases) {
        Offer::Made(key, made) => {
            header.delta = Some(wire::DeltaOffer {
                sha256: made.hash.to_string(),
                size_bytes: made.size_bytes,
                base: key.base.map(|base| base.to_string()).unwrap_or_default(),
            });
        }
        Offer::AskAgain(after) => {
            header.retry_after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        }
        Offer::None => {}
    }
    Ok(header)
}

/// Sends what was opened, to its end, no faster than the connection takes without a queue.
pub(crate) async fn pour(
    cloud: &Cloud,
    asker: &Asker<'_>,
    send: &mut SendStream,
    mut blob: Open,
) -> Result<(), LinkError> {
    let Open { size_bytes, offset, .. } = blob;
    let header = wire::BlobHeader { size_bytes, offset, ..Default::default() };
    frames::send(send, &header).await?;
    let mut left = (&mut blob.file).take(blob.length);
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match left.read_buf(&mut chunk).await {
            Ok(0) => break,
            Ok(bytes) => {
                send.write_chunk(chunk.freeze()).await?;
                let next = asker.pace.sent(bytes, asker.connection);
                tokio::time::sleep_until(next.into()).await;
            }
            Err(error) => {
                cloud.events.internal_error(&error);
                send.reset(ProblemCode::Internal);
                return Ok(());
            }
        }
    }
    send.finish()?;
    cloud.events.blob_sent(asker.name, blob.hash, blob.length);
    Ok(())
}
