//! Serving the site: a peer that is named may ask for stretches of the files of whole bundles, by hash.

use super::{NotSpoken, Peers};
use crate::install::served;
use ::link::connection::{Connection, RecvStream, SendStream};
use ::link::frames::{self, LinkError};
use bytes::{Bytes, BytesMut};
use edge::peers::NotServed;
use protocol::codec::{CodecError, FrameKind};
use protocol::id::{ContentHash, DeviceId};
use protocol::limits::{PEER_ANSWER_MAX_BYTES, PEER_CONNECTIONS_MAX};
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode, chain};
use protocol::wire::{self, BlobForm, BlobHeader, BlobRequest};
use std::io::SeekFrom;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// For a handshake, for a question on an open stream, and for a piece to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection on which nothing is asked for so long is closed: others want its place.
const IDLE: Duration = Duration::from_secs(30);
/// Read from the disk, and sent, at a time.
const PIECE_BYTES: usize = 16 << 10;
/// After a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer that is granted; what of it is not sent is given back.
struct Upload<'p> {
    peers: &'p Peers,
    left: u64,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let mut uploads = self.peers.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.end(self.left);
    }
}

impl Peers {
    /// Takes connections for ever.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(PEER_CONNECTIONS_MAX));
        loop {
            let Ok((stream, address)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await; // no more files, for now
                continue;
            };
            let Ok(place) = room.clone().try_acquire_owned() else {
                self.counters.peer_not_served("too many connections of peers");
                continue; // closed
            };
            let peers = self.clone();
            tokio::spawn(async move {
                if let Err(error) = peers.welcome(stream).await {
                    peers.counters.stranger(address, &chain(&error));
                }
                drop(place);
            });
        }
    }

    /// Serves a peer until its connection ends.
    async fn welcome(&self, stream: TcpStream) -> Result<(), NotSpoken> {
        let ends = self.ends()?;
        let shaken = tokio::time::timeout(PATIENCE, ends.accept(stream)).await;
        let (guest, who) = shaken.map_err(|_| NotSpoken::Silent)??;
        self.judge(&who)?;
        if !self.let_in(&who.device, &guest) {
            guest.close(ProblemCode::Unauthorised, "this device is no peer");
            guest.finish().await;
            return Err(NotSpoken::Another);
        }
        let next = || tokio::time::timeout(IDLE, guest.accept_bi());
        while let Ok(Ok((send, receive))) = next().await {
            // One after the other: a peer asks for one stretch at a time.
            if let Err(error) = self.answer(&who.device, send, receive).await {
                tracing::debug!(peer = %who.device, error = chain(&error), "a peer was not answered");
                if matches!(error, LinkError::Codec(_)) {
                    guest.close(ProblemCode::Protocol, "not what a peer may ask");
                }
            }
        }
        guest.close(ProblemCode::None, "");
        self.known().guests.retain(|(_, other)| other.stable_id() != guest.stable_id());
        Ok(())
    }

    /// Under one lock, so that who is denied meanwhile is either refused here or let go there.
    fn let_in(&self, device: &DeviceId, guest: &Connection) -> bool {
        let mut known = self.known();
        let is_named = known.standings.is_named(device);
        if is_named {
            known.guests.push((device.clone(), guest.clone()));
        }
        is_named
    }

    async fn answer(
        &self,
        peer: &DeviceId,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), LinkError> {
        send.set_priority(Priority::Blob);
        let question = tokio::time::timeout(PATIENCE, question(&mut receive)).await;
        let request = question.map_err(|_| LinkError::Ended)??;
        match self.grant(&request).await {
            Ok((header, file, upload)) => self.pour(send, header, file, upload).await,
            Err(problem) => {
                if problem.code == ProblemCode::Overloaded {
                    self.counters.peer_not_served(&problem.message);
                }
                tracing::debug!(%peer, %problem, "a peer asked for what is not given");
                frames::send_last(&mut send, &wire::Problem::from(problem), []).await
            }
        }
    }

    /// The stretch that was asked for, as far as it is granted.
    async fn grant(
        &self,
        request: &BlobRequest,
    ) -> Result<(BlobHeader, File, Upload<'_>), Problem> {
        let invalid = |text: &str| Problem::new(ProblemCode::InvalidRequest, text);
        let hash: ContentHash = request.sha256.parse().map_err(|_| invalid("no hash"))?;
        if request.form() != BlobForm::Bytes {
            return Err(invalid("peers give bytes"));
        }
        let absent = || Problem::new(ProblemCode::NotFound, "this device does not have it");
        let found = ::link::durable::aside(|| served(&self.bundles, hash)).ok_or_else(absent)?;
        let size_bytes = found.size_bytes;
        let left = size_bytes.checked_sub(request.offset).filter(|left| *left > 0);
        let left = left.ok_or_else(|| invalid("nothing is there"))?;
        let wanted = request.length.min(left).min(PEER_ANSWER_MAX_BYTES);
        if wanted == 0 {
            return Err(invalid("nothing is asked for"));
        }
        let granted = {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.begin(wanted, Instant::now())
        };
        let left = granted
            .map_err(|not: NotServed| Problem::new(ProblemCode::Overloaded, not.to_string()))?;
        let upload = Upload { peers: self, left };
        let mut file = File::open(&found.path).await.map_err(|_| absent())?; // swept just now
        file.seek(SeekFrom::Start(request.offset)).await.map_err(|_| absent())?;
        let header = BlobHeader { size_bytes, offset: request.offset, ..Default::default() };
        Ok((header, file, upload))
    }

    async fn pour(
        &self,
        mut send: SendStream,
        header: BlobHeader,
        file: File,
        mut upload: Upload<'_>,
    ) -> Result<(), LinkError> {
        frames::send(&mut send, &header).await?;
        let mut left = file.take(upload.left);
        let mut due = Instant::now();
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let Ok(bytes) = left.read_buf(&mut piece).await else {
                send.reset(ProblemCode::Internal);
                return Ok(());
            };
            if bytes == 0 {
                return send.finish();
            }
            hand(&mut send, piece.freeze()).await?;
            upload.left = upload.left.saturating_sub(bytes as u64);
            self.counters.peer_given(bytes as u64);
            due = self.pace(due, bytes).await;
        }
    }

    async fn pace(&self, due: Instant, bytes: usize) -> Instant {
        match self.settings.upload_bytes_per_s {
            0 => due,
            per_s => {
                let due = due + Duration::from_secs_f64(bytes as f64 / per_s as f64);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        }
    }
}

/// To a peer that takes it.
async fn hand(send: &mut SendStream, piece: Bytes) -> Result<(), LinkError> {
    let taken = tokio::time::timeout(PATIENCE, send.write_chunk(piece)).await;
    if taken.is_err() {
        send.reset(ProblemCode::DeadlineExceeded);
    }
    taken.map_err(|_| LinkError::Ended)?
}

async fn question(receive: &mut RecvStream) -> Result<BlobRequest, LinkError> {
    let header = frames::next_header(receive).await?.ok_or(LinkError::Ended)?;
    if header.kind != FrameKind::BlobRequest {
        let (expected, actual) = (FrameKind::BlobRequest, header.kind);
        return Err(LinkError::Codec(CodecError::Unexpected { expected, actual }));
    }
    frames::message(receive, header).await
}
