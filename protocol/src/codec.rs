//! Frames: one message each, its length bounded by its kind before anything is allocated.
//!
//! ```text
//! +------+----------------------+---------------------------+
//! | kind | length, u32, LE      | protobuf message          |
//! +------+----------------------+---------------------------+
//!   1 B    4 B                    length B
//! ```
//!
//! Bulk bytes (tensors, blobs) follow a frame raw; the frame says how many there are.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::limits::{
    CONTROL_FRAME_MAX_BYTES, HEADER_FRAME_MAX_BYTES, PULSE_FRAME_MAX_BYTES, TIME_FRAME_MAX_BYTES,
};
use crate::wire;

/// Bytes before the message.
pub const FRAME_HEADER_BYTES: usize = 5;

/// What a frame holds. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// [`wire::Problem`], on any stream.
    Problem = 0,
    /// [`wire::Hello`], opens the control stream.
    Hello = 1,
    /// [`wire::ReportedState`].
    ReportedState = 2,
    /// [`wire::DesiredState`].
    DesiredState = 3,
    /// [`wire::InferOpen`], opens an inference stream.
    InferOpen = 4,
    /// [`wire::InferReply`].
    InferReply = 5,
    /// [`wire::BlobRequest`], opens a blob stream.
    BlobRequest = 6,
    /// [`wire::BlobHeader`].
    BlobHeader = 7,
    /// [`wire::EnrolRequest`], opens the stream of an enrolment connection.
    EnrolRequest = 8,
    /// [`wire::EnrolReply`].
    EnrolReply = 9,
    /// [`wire::RenewRequest`], opens the stream of a renewal connection.
    RenewRequest = 10,
    /// [`wire::TimeRequest`], opens a stream of any connection.
    TimeRequest = 11,
    /// [`wire::SignedTime`].
    SignedTime = 12,
    /// [`wire::Pulse`], opens a stream on which an agent sees whether a node lives.
    Pulse = 13,
    /// [`wire::NodeState`].
    NodeState = 14,
    /// [`wire::NodeHello`], opens the control stream of an inference node.
    NodeHello = 15,
    /// [`wire::NodeUpdate`].
    NodeUpdate = 16,
    /// [`wire::NodeReport`].
    NodeReport = 17,
    /// [`wire::NodeUsage`], opens a stream of an inference node.
    NodeUsage = 18,
    /// [`wire::NodeUsageTaken`].
    NodeUsageTaken = 19,
    /// [`wire::MetadataRequest`], opens a stream.
    MetadataRequest = 20,
    /// [`wire::MetadataHeader`].
    MetadataHeader = 21,
    /// [`wire::TelemetryOffer`], opens a stream.
    TelemetryOffer = 22,
    /// [`wire::TelemetryWanted`].
    TelemetryWanted = 23,
    /// [`wire::TelemetryTaken`].
    TelemetryTaken = 24,
    /// [`wire::Evidence`].
    Evidence = 27,
    /// [`wire::DeviceAnswer`], opens a stream.
    DeviceAnswer = 28,
}

const KINDS: &[(FrameKind, u32)] = &[
    (FrameKind::Problem, HEADER_FRAME_MAX_BYTES),
    (FrameKind::Hello, CONTROL_FRAME_MAX_BYTES),
    (FrameKind::ReportedState, CONTROL_FRAME_MAX_BYTES),
    (FrameKind::DesiredState, CONTROL_FRAME_MAX_BYTES),
    (FrameKind::InferOpen, HEADER_FRAME_MAX_BYTES),
    (FrameKind::InferReply, HEADER_FRAME_MAX_BYTES),
    (FrameKind::BlobRequest, HEADER_FRAME_MAX_BYTES),
    (FrameKind::BlobHeader, HEADER_FRAME_MAX_BYTES),
    (FrameKind::EnrolRequest, HEADER_FRAME_MAX_BYTES),
    (FrameKind::EnrolReply, HEADER_FRAME_MAX_BYTES),
    (FrameKind::RenewRequest, HEADER_FRAME_MAX_BYTES),
    (FrameKind::TimeRequest, TIME_FRAME_MAX_BYTES),
    (FrameKind::SignedTime, TIME_FRAME_MAX_BYTES),
    (FrameKind::Pulse, PULSE_FRAME_MAX_BYTES),
    (FrameKind::NodeState, PULSE_FRAME_MAX_BYTES),
    (FrameKind::NodeHello, HEADER_FRAME_MAX_BYTES),
    (FrameKind::NodeUpdate, CONTROL_FRAME_MAX_BYTES),
    (FrameKind::NodeReport, HEADER_FRAME_MAX_BYTES),
    (FrameKind::NodeUsage, CONTROL_FRAME_MAX_BYTES),
    (FrameKind::NodeUsageTaken, HEADER_FRAME_MAX_BYTES),
    (FrameKind::MetadataRequest, HEADER_FRAME_MAX_BYTES),
    (FrameKind::MetadataHeader, HEADER_FRAME_MAX_BYTES),
    (FrameKind::TelemetryOffer, HEADER_FRAME_MAX_BYTES),
    (FrameKind::TelemetryWanted, HEADER_FRAME_MAX_BYTES),
    (FrameKind::TelemetryTaken, HEADER_FRAME_MAX_BYTES),
    (FrameKind::Evidence, HEADER_FRAME_MAX_BYTES),
    (FrameKind::DeviceAnswer, HEADER_FRAME_MAX_BYTES),
];

impl FrameKind {
    /// The longest message of this kind.
    pub fn max_bytes(self) -> u32 {
        let own = KINDS.iter().find(|(kind, _)| *kind == self);
        own.map_or(HEADER_FRAME_MAX_BYTES, |(_, max_bytes)| *max_bytes)
    }

    fn from_number(number: u8) -> Option<Self> {
        KINDS.iter().map(|(kind, _)| *kind).find(|kind| *kind as u8 == number)
    }
}

/// How the peer broke the framing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A kind that this build does not know.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A message longer than its kind may be.
    #[error("a {kind:?} frame of {len} bytes; at most {} are taken", kind.max_bytes())]
    TooLong {
        /// The frame's kind.
        kind: FrameKind,
        /// Its announced length.
        len: u32,
    },
    /// A frame of another kind than the protocol allows at this point.
    #[error("expected a {expected:?} frame, got {actual:?}")]
    Unexpected {
        /// What the protocol allows here.
        expected: FrameKind,
        /// What came.
        actual: FrameKind,
    },
    /// The bytes are no such message.
    #[error("a {kind:?} frame that does not decode: {reason}")]
    Malformed {
        /// The frame's kind.
        kind: FrameKind,
        /// What the decoder says.
        reason: String,
    },
}

/// Kind and length of a frame whose message is still to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it holds.
    pub kind: FrameKind,
    /// The message's length, within its kind's limit.
    pub len: u32,
}

impl FrameHeader {
    /// Reads a header, refusing a length beyond the limit of its kind.
    ///
    /// # Errors
    /// [`CodecError::UnknownKind`] or [`CodecError::TooLong`].
    pub fn decode(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, CodecError> {
        let [kind, a, b, c, d] = bytes;
        let kind = FrameKind::from_number(kind).ok_or(CodecError::UnknownKind(kind))?;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len > kind.max_bytes() {
            return Err(CodecError::TooLong { kind, len });
        }
        Ok(Self { kind, len })
    }
}

/// A message with its place in the protocol.
pub trait Framed: Message + Default {
    /// The kind of frame that carries it.
    const KIND: FrameKind;
}

macro_rules! framed {
    ($($message:ident),*) => {
        $(impl Framed for wire::$message {
            const KIND: FrameKind = FrameKind::$message;
        })*
    };
}
framed!(
    Problem,
    Hello,
    ReportedState,
    DesiredState,
    InferOpen,
    InferReply,
    BlobRequest,
    BlobHeader,
    EnrolRequest,
    EnrolReply,
    RenewRequest,
    TimeRequest,
    SignedTime,
    Pulse,
    NodeState,
    NodeHello,
    NodeUpdate,
    NodeReport,
    NodeUsage,
    NodeUsageTaken,
    MetadataRequest,
    MetadataHeader,
    TelemetryOffer,
    TelemetryWanted,
    TelemetryTaken,
    Evidence,
    DeviceAnswer
);

/// The frame of a message.
///
/// # Errors
/// [`CodecError::TooLong`] when our own message is beyond the limit of its kind.
pub fn encode<M: Framed>(message: &M) -> Result<BytesMut, CodecError> {
    let len = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
    if len > M::KIND.max_bytes() {
        return Err(CodecError::TooLong { kind: M::KIND, len });
    }
    let mut out = BytesMut::with_capacity(FRAME_HEADER_BYTES + len as usize);
    out.put_u8(M::KIND as u8);
    out.put_u32_le(len);
    message.encode_raw(&mut out);
    Ok(out)
}

/// The message in a frame's body.
///
/// # Errors
/// [`CodecError::Unexpected`] for another kind, [`CodecError::Malformed`] for undecodable bytes.
pub fn decode<M: Framed>(header: FrameHeader, body: Bytes) -> Result<M, CodecError> {
    if header.kind != M::KIND {
        return Err(CodecError::Unexpected { expected: M::KIND, actual: header.kind });
    }
    M::decode(body).map_err(|e| CodecError::Malformed { kind: header.kind, reason: e.to_string() })
}
