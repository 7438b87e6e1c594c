//! Blobs for agents: only those of a bundle that the device should run, and only when nothing more
//! urgent is to be sent.

use bytes::BytesMut;
use fleet::background::Background;
use link::connection::{Connection, RecvStream, SendStream};
use link::frames::{self, LinkError};
use protocol::codec::FrameHeader;
use protocol::id::{ContentHash, InvalidName};
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use std::io::SeekFrom;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::answer_problem;
use super::session::{Session, StreamError};
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
    match open(session, &request).await {
        Ok(blob) => {
            let Session { cloud, device, connection, pace, .. } = session;
            Ok(pour(cloud, &Asker { name: device, connection, pace }, &mut send, blob).await?)
        }
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
}

async fn open(session: &Session, request: &wire::BlobRequest) -> Result<Open, Problem> {
    let hash = request.sha256.parse().map_err(|error: InvalidName| {
        Problem::new(ProblemCode::InvalidRequest, error.to_string())
    })?;
    let device = session.device.clone();
    let size = session.cloud.db.call(move |store| store.readable_blob(&device, hash)).await;
    let size = size.map_err(|error| internal(&session.cloud, &error))?;
    open_at(&session.cloud, hash, size, request.offset).await
}

fn internal(cloud: &Cloud, error: &dyn std::error::Error) -> Problem {
    cloud.events.internal_error(error);
    Problem::new(ProblemCode::Internal, "the cloud cannot read the blob")
}

/// Opens a blob of this size, at an offset; `None` for one that the asker may not have.
pub(crate) async fn open_at(
    cloud: &Cloud,
    hash: ContentHash,
    size_bytes: Option<u64>,
    offset: u64,
) -> Result<Open, Problem> {
    let size_bytes = size_bytes.ok_or_else(|| {
        let text = "no such blob in what the asker should run";
        Problem::new(ProblemCode::NotFound, text).hint("the assignment may have changed")
    })?;
    if offset > size_bytes {
        let text = format!("offset {offset} of {size_bytes} bytes");
        return Err(Problem::new(ProblemCode::InvalidRequest, text));
    }
    let file = File::open(cloud.blobs.path(hash)).await;
    let mut file = file.map_err(|error| internal(cloud, &error))?;
    file.seek(SeekFrom::Start(offset)).await.map_err(|error| internal(cloud, &error))?;
    Ok(Open { hash, file, size_bytes, offset })
}

/// Sends what was opened, to its end, no faster than the connection takes without a queue.
pub(crate) async fn pour(
    cloud: &Cloud,
    asker: &Asker<'_>,
    send: &mut SendStream,
    mut blob: Open,
) -> Result<(), LinkError> {
    let header = wire::BlobHeader { size_bytes: blob.size_bytes, offset: blob.offset };
    frames::send(send, &header).await?;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match blob.file.read_buf(&mut chunk).await {
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
    cloud.events.blob_sent(asker.name, blob.hash, blob.size_bytes - blob.offset);
    Ok(())
}
