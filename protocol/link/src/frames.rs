//! Frames on streams: one message at a time, and raw bytes behind it.

use bytes::Bytes;
use protocol::codec::{
    CodecError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Framed, decode, encode,
};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use quinn::{ReadError, WriteError};

use crate::connection::{Ended, RecvStream, SendStream};

/// Raw bytes are given room as they arrive, this much at first, whatever the header announced.
const FIRST_ALLOCATION_BYTES: usize = 1 << 20;

/// Why an exchange on a stream failed. Absent, refused and unreachable are different things.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is gone.
    #[error("the connection was lost")]
    Connection(#[from] Ended),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol")]
    Codec(#[from] CodecError),
    /// The peer answered with a problem.
    #[error("{0}")]
    Refused(Problem),
    /// The stream ended in the middle of something.
    #[error("the stream ended too early")]
    Ended,
    /// The peer gave the stream up, with this code.
    #[error("the peer gave the stream up ({})", .0.as_str())]
    Reset(ProblemCode),
}

impl LinkError {
    /// What is told to whoever waits for the answer.
    pub fn into_problem(self) -> Problem {
        match self {
            LinkError::Refused(problem) => problem,
            LinkError::Codec(error) => Problem::new(ProblemCode::Protocol, error.to_string()),
            LinkError::Reset(code) => Problem::new(code, "the peer gave the request up"),
            LinkError::Connection(_) | LinkError::Ended => {
                Problem::new(ProblemCode::Unreachable, self.to_string())
            }
        }
    }
}

fn reset_code(code: quinn::VarInt) -> ProblemCode {
    ProblemCode::from_number(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => LinkError::Reset(reset_code(code)),
            WriteError::ConnectionLost(e) => LinkError::Connection(e.into()),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => LinkError::Ended,
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => LinkError::Reset(reset_code(code)),
            ReadError::ConnectionLost(e) => LinkError::Connection(e.into()),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => LinkError::Ended,
        }
    }
}

/// Sends one message.
///
/// # Errors
/// [`LinkError`].
pub async fn send<M: Framed>(stream: &mut SendStream, message: &M) -> Result<(), LinkError> {
    let frame = encode(message)?.freeze();
    stream.write_chunk(frame).await
}

/// Sends one message, the raw bytes behind it, and the end of the stream.
///
/// # Errors
/// [`LinkError`].
pub async fn send_last<M: Framed>(
    stream: &mut SendStream,
    message: &M,
    raw: impl IntoIterator<Item = Bytes>,
) -> Result<(), LinkError> {
    let mut chunks: Vec<Bytes> = vec![encode(message)?.freeze()];
    chunks.extend(raw);
    stream.write_all_chunks(&mut chunks).await?;
    stream.finish()
}

/// The header of the next frame, or `None` where the peer ended the stream in order.
///
/// # Errors
/// [`LinkError`].
pub async fn next_header(stream: &mut RecvStream) -> Result<Option<FrameHeader>, LinkError> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    match stream.fill(&mut bytes).await? {
        FRAME_HEADER_BYTES => Ok(Some(FrameHeader::decode(bytes)?)),
        0 => Ok(None),
        _ => Err(LinkError::Ended),
    }
}

/// The message of a frame whose header was read.
///
/// # Errors
/// [`LinkError`]; a [`FrameKind::Problem`] frame becomes [`LinkError::Refused`].
pub async fn message<M: Framed>(
    stream: &mut RecvStream,
    header: FrameHeader,
) -> Result<M, LinkError> {
    let mut body = vec![0; header.len as usize]; // bounded by the frame's kind
    if stream.fill(&mut body).await? < body.len() {
        return Err(LinkError::Ended);
    }
    if header.kind == FrameKind::Problem && M::KIND != FrameKind::Problem {
        let problem: wire::Problem = decode(header, body.into())?;
        return Err(LinkError::Refused(problem.into()));
    }
    Ok(decode(header, body.into())?)
}

/// The next message, which must be there.
///
/// # Errors
/// [`LinkError`].
pub async fn receive<M: Framed>(stream: &mut RecvStream) -> Result<M, LinkError> {
    let header = next_header(stream).await?.ok_or(LinkError::Ended)?;
    message(stream, header).await
}

/// Raw bytes: one piece per size, in order. The caller has bounded the sizes.
///
/// # Errors
/// [`LinkError`].
pub async fn receive_raw(stream: &mut RecvStream, sizes: &[u64]) -> Result<Vec<Bytes>, LinkError> {
    let mut pieces = Vec::with_capacity(sizes.len());
    for size in sizes {
        pieces.push(receive_piece(stream, usize::try_from(*size).unwrap_or(usize::MAX)).await?);
    }
    Ok(pieces)
}

async fn receive_piece(stream: &mut RecvStream, size: usize) -> Result<Bytes, LinkError> {
    let mut piece = Vec::with_capacity(size.min(FIRST_ALLOCATION_BYTES));
    while piece.len() < size {
        let chunk = stream.read_chunk(size - piece.len()).await?.ok_or(LinkError::Ended)?;
        piece.extend_from_slice(&chunk);
    }
    Ok(piece.into())
}
