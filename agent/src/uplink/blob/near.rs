//! A blob from devices nearby, chunk by chunk: each is compared with its hash as soon as it is here, so that a peer
//! that lies, breaks off or stands still costs one chunk at most, and is left alone.
//!
//! What the chunks' hashes are, the cloud says, and no peer. What peers do not have, the cloud is asked for.

use super::{FetchError, Incoming, PIECE_BYTES};
use crate::peers::Peers;
use crate::uplink::Uplink;
use ::link::connection::{Connection, Ended};
use ::link::durable::aside;
use ::link::frames::LinkError;
use edge::peers::{Misdeed, Outcome};
use protocol::id::DeviceId;
use protocol::limits::PEER_ANSWER_MAX_BYTES;
use protocol::problem::ProblemCode;
use protocol::transfer::{BlobRef, ChunkHashes, TransferError};
use protocol::wire::BlobRequest;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::partial::Partial;

/// How long a peer may send nothing.
const STALL: Duration = Duration::from_secs(5);
/// So many who failed one after the other, and the cloud is asked: a site may have been switched off.
const FAILURES_MAX: u32 = 4;
/// A peer that is slower is given up.
const LEAST_BYTES_PER_S: u64 = 16 << 10;

impl Incoming {
    /// Takes what peers have of a blob. Whether all of it is in its place now.
    ///
    /// # Errors
    /// What no peer is to blame for: the disk, or bytes whose chunks the cloud named wrongly.
    pub(super) async fn fetch_near(
        &self,
        uplink: &Uplink,
        blob: BlobRef,
        whole: &Path,
    ) -> Result<bool, FetchError> {
        let Some(peers) = self.peers.as_ref().filter(|peers| peers.choose(blob.hash).is_some())
        else {
            return Ok(false);
        };
        let (part, chunks) = (self.path(blob.hash, ".part"), self.path(blob.hash, ".chunks"));
        let Some(hashes) = self.hashes_at_hand(uplink, &blob, &chunks).await? else {
            return Ok(false);
        };
        let mut partial = aside(|| Partial::open(blob, hashes, &part))?;
        let mut failures = 0;
        while let Some(range) = partial.download.wanted()
            && failures < FAILURES_MAX
            && let Some(peer) = peers.choose(blob.hash)
        {
            let outcome = self.ask_peer((peers, &peer), blob, &mut partial, range).await?;
            failures = if matches!(outcome, Outcome::Failed(_)) { failures + 1 } else { 0 };
            peers.handle_outcome(&peer, blob.hash, outcome);
        }
        peers.hang_up();
        if partial.download.finish().is_err() {
            if partial.download.have() == 0 {
                let _ = std::fs::remove_file(&part); // a delta may be of more use than nothing
            }
            return Ok(false);
        }
        let finished = aside(|| partial.finish());
        self.put(finished, blob, whole)?;
        Ok(true)
    }

    /// The hashes of the chunks, where they can be had without waiting for a cloud; `Some(None)` for a blob of one.
    async fn hashes_at_hand(
        &self,
        uplink: &Uplink,
        blob: &BlobRef,
        path: &Path,
    ) -> Result<Option<Option<ChunkHashes>>, FetchError> {
        if blob.chunks() < 2 {
            return Ok(Some(None));
        }
        let kept = std::fs::read(path).ok();
        if let Some(hashes) = kept.and_then(|bytes| ChunkHashes::from_bytes(blob, &bytes)) {
            return Ok(Some(Some(hashes)));
        }
        if uplink.connection().is_none() {
            return Ok(None);
        }
        let connection = self.cloud(uplink).await?;
        // A cloud that knows of no chunks: the whole file would be a peer's to spoil.
        Ok(self.chunk_hashes(&connection, blob, path).await?.map(Some))
    }

    async fn ask_peer(
        &self,
        (peers, peer): (&Peers, &DeviceId),
        blob: BlobRef,
        partial: &mut Partial,
        range: Range<u64>,
    ) -> Result<Outcome, FetchError> {
        let line = match peers.line(peer).await {
            Ok(line) => line,
            Err(misdeed) => return Ok(Outcome::Failed(misdeed)),
        };
        let length = (range.end - range.start).min(PEER_ANSWER_MAX_BYTES);
        let patience = STALL + Duration::from_secs(length / LEAST_BYTES_PER_S);
        let before = partial.download.have();
        let taking = self.take_from(peers, &line, blob, partial, range.start..range.start + length);
        let taken = tokio::time::timeout(patience, taking).await;
        let taken = taken.unwrap_or(Err(FetchError::Stalled(patience)));
        let came = partial.download.have() > before;
        match taken.map_err(|error| blame(&error).ok_or(error)) {
            Ok(()) if came => Ok(Outcome::Served),
            Ok(()) => Ok(Outcome::Failed(Misdeed::Unreachable)), // it broke off before a chunk was here
            // It may go away in the middle; the next choice finds out.
            Err(Ok(Outcome::Failed(Misdeed::Unreachable))) if came => Ok(Outcome::Served),
            Err(Ok(outcome)) => Ok(outcome),
            Err(Err(error)) => Err(error),
        }
    }

    /// Takes a stretch, or as much of it as the peer gives.
    async fn take_from(
        &self,
        peers: &Peers,
        line: &Connection,
        blob: BlobRef,
        partial: &mut Partial,
        range: Range<u64>,
    ) -> Result<(), FetchError> {
        let ask = BlobRequest {
            sha256: blob.hash.to_string(),
            offset: range.start,
            length: range.end - range.start,
            ..Default::default()
        };
        let (header, mut receive) = near(self.ask(line, &ask)).await?;
        partial.download.check_header(header.size_bytes, header.offset)?;
        while partial.download.offset() < range.end {
            let room = partial.download.room().min(range.end - partial.download.offset());
            let most = usize::try_from(room).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let read = async { Ok(receive.read_chunk(most).await?) };
            let Some(piece) = near(read).await? else { return Ok(()) };
            peers.came(piece.len() as u64);
            if !partial.take(&piece)? {
                let chunk = partial.download.offset() / protocol::limits::CHUNK_BYTES;
                return Err(TransferError::DamagedChunk { chunk }.into());
            }
        }
        Ok(())
    }
}

/// What stands still nearby is not waited for.
async fn near<T>(wait: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    tokio::time::timeout(STALL, wait).await.map_err(|_| FetchError::Stalled(STALL))?
}

/// What a failure says of the peer; `None` where it is none of its doing.
fn blame(error: &FetchError) -> Option<Outcome> {
    let misdeed = match error {
        FetchError::Link(LinkError::Refused(problem)) => match problem.code {
            ProblemCode::NotFound | ProblemCode::Overloaded => return Some(Outcome::Absent),
            _ => Misdeed::Refused,
        },
        FetchError::Link(LinkError::Connection(Ended::ByPeer { code, .. }))
            if *code == ProblemCode::Unauthorised =>
        {
            Misdeed::Refused
        }
        FetchError::Link(LinkError::Codec(_)) => Misdeed::WrongAnswer,
        FetchError::Link(_) => Misdeed::Unreachable,
        FetchError::Stalled(_) => Misdeed::Stalled,
        FetchError::Transfer(
            TransferError::WrongSize { .. }
            | TransferError::WrongOffset { .. }
            | TransferError::TooLong { .. },
        ) => Misdeed::WrongAnswer,
        FetchError::Transfer(_) => Misdeed::WrongBytes,
        FetchError::NotNow(_) | FetchError::Disk { .. } | FetchError::Uplink(_) => return None,
        FetchError::Away => return None,
    };
    Some(Outcome::Failed(misdeed))
}
