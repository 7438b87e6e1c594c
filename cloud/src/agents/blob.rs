//! Blobs for agents: only those of a bundle that the device should run, and only when nothing more
//! urgent is to be sent.

use bytes::BytesMut;
use link::frames::{self, LinkError};
use protocol::codec::FrameHeader;
use protocol::id::{ContentHash, InvalidName};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use quinn::{RecvStream, SendStream};
use std::io::SeekFrom;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::answer_problem;
use super::session::{Session, StreamError};

/// Below every inference stream (0).
const PRIORITY: i32 = -10;
/// Read from the disk at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Serves one blob stream.
pub(super) async fn serve(
    session: &Session,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let request: wire::BlobRequest = frames::message(&mut recv, header).await?;
    let _ = send.set_priority(PRIORITY); // fails only for a stream that is closed already
    match open(session, &request).await {
        Ok(blob) => stream(session, &mut send, blob).await,
        Err(problem) => {
            session.cloud.events.blob_refused(&session.device, &problem);
            Ok(answer_problem(&mut send, &mut recv, problem).await?)
        }
    }
}

/// A blob that was granted, its file at the asked offset.
struct Open {
    hash: ContentHash,
    file: File,
    size_bytes: u64,
    offset: u64,
}

async fn open(session: &Session, request: &wire::BlobRequest) -> Result<Open, Problem> {
    let invalid = |text: String| Problem::new(ProblemCode::InvalidRequest, text);
    let hash = request.sha256.parse().map_err(|e: InvalidName| invalid(e.to_string()))?;
    let internal = |error: &dyn std::error::Error| {
        session.cloud.events.internal_error(error);
        Problem::new(ProblemCode::Internal, "the cloud cannot read the blob")
    };
    let device = session.device.clone();
    let size = session.cloud.db.call(move |store| store.readable_blob(&device, hash)).await;
    let size_bytes = size.map_err(|error| internal(&error))?.ok_or_else(|| {
        let text = "no such blob in what this device should run";
        Problem::new(ProblemCode::NotFound, text).hint("the assignment may have changed")
    })?;
    if request.offset > size_bytes {
        return Err(invalid(format!("offset {} of {size_bytes} bytes", request.offset)));
    }
    let path = session.cloud.blobs.path(hash);
    let mut file = File::open(path).await.map_err(|error| internal(&error))?;
    file.seek(SeekFrom::Start(request.offset)).await.map_err(|error| internal(&error))?;
    Ok(Open { hash, file, size_bytes, offset: request.offset })
}

async fn stream(
    session: &Session,
    send: &mut SendStream,
    mut blob: Open,
) -> Result<(), StreamError> {
    let header = wire::BlobHeader { size_bytes: blob.size_bytes, offset: blob.offset };
    frames::send(send, &header).await?;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match blob.file.read_buf(&mut chunk).await {
            Ok(0) => break,
            Ok(_) => send.write_chunk(chunk.freeze()).await.map_err(LinkError::from)?,
            Err(error) => {
                session.cloud.events.internal_error(&error);
                let _ = send.reset(ProblemCode::Internal.number().into());
                return Ok(());
            }
        }
    }
    send.finish().map_err(|_| LinkError::Ended)?;
    session.cloud.events.blob_sent(&session.device, blob.hash, blob.size_bytes - blob.offset);
    Ok(())
}
