//! The frames: a header of nine bytes, and behind data and the reason of an end so many bytes more.
//!
//! ```text
//! +------+-------------------+------------------+----------------+
//! | kind | stream, u32, LE   | value, u32, LE   | payload        |
//! +------+-------------------+------------------+----------------+
//!   1 B    4 B                 4 B                value B, or none
//! ```

use super::DATA_MAX_BYTES;

/// Bytes before a payload.
pub const HEADER_BYTES: usize = 9;
/// The reason that goes with the end of a connection.
pub const REASON_MAX_BYTES: usize = 256;

/// What a frame says. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The stream exists.
    Open = 0,
    /// `value` bytes of it follow.
    Data = 1,
    /// The same, and they are the last.
    Last = 2,
    /// The sender gives it up, with the code `value`.
    Reset = 3,
    /// The receiver wants no more of it, with the code `value`.
    Stop = 4,
    /// `value` bytes more may be sent on it.
    Credit = 5,
    /// All of it has arrived.
    Received = 6,
    /// `value` bytes more may be sent on all streams together.
    AllCredit = 7,
    /// Streams below `value` may be opened.
    Streams = 8,
    /// Are you there?
    Ping = 9,
    /// Yes.
    Pong = 10,
    /// The end, with the code `stream` and a reason of `value` bytes.
    Close = 11,
}

const KINDS: [Kind; 12] = [
    Kind::Open,
    Kind::Data,
    Kind::Last,
    Kind::Reset,
    Kind::Stop,
    Kind::Credit,
    Kind::Received,
    Kind::AllCredit,
    Kind::Streams,
    Kind::Ping,
    Kind::Pong,
    Kind::Close,
];

/// How the peer broke the protocol of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A kind that this build does not know.
    #[error("unknown kind {0} of a frame")]
    Kind(u8),
    /// A payload that is longer than it may be.
    #[error("a frame of {0} bytes")]
    TooLong(u32),
    /// A stream that is not there, or may not be opened.
    #[error("no stream {0} may be spoken of")]
    Stream(u32),
    /// More data than the peer had credit for.
    #[error("more data on stream {0} than was allowed")]
    Credit(u32),
    /// Data after the end of a stream.
    #[error("data after the end of stream {0}")]
    AfterEnd(u32),
    /// A limit of streams that falls, or from the wrong side.
    #[error("a limit of {0} streams")]
    Limit(u32),
    /// Words about something that was never said.
    #[error("an answer to nothing")]
    Unasked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    pub(super) value: u32,
}

impl Header {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(self.kind as u8);
        out.extend_from_slice(&self.stream.to_le_bytes());
        out.extend_from_slice(&self.value.to_le_bytes());
    }

    fn read(bytes: [u8; HEADER_BYTES]) -> Result<Self, MuxError> {
        let [kind, s0, s1, s2, s3, v0, v1, v2, v3] = bytes;
        let kind = *KINDS.get(usize::from(kind)).ok_or(MuxError::Kind(kind))?;
        let stream = u32::from_le_bytes([s0, s1, s2, s3]);
        let value = u32::from_le_bytes([v0, v1, v2, v3]);
        let most = match kind {
            Kind::Data | Kind::Last => DATA_MAX_BYTES,
            Kind::Close => REASON_MAX_BYTES,
            _ => return Ok(Self { kind, stream, value }),
        };
        if usize::try_from(value).is_ok_and(|value| value <= most) {
            return Ok(Self { kind, stream, value });
        }
        Err(MuxError::TooLong(value))
    }
}

/// What came of some bytes.
pub(super) enum Step {
    /// Nothing yet.
    More,
    /// A header; for data the payload follows.
    Frame(Header),
    /// The end, whole.
    Closed { code: u32, reason: String },
}

/// Headers, and the reason of an end, put together from pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    header: [u8; HEADER_BYTES],
    have: usize,
    closing: Option<Header>,
    reason: Vec<u8>,
}

impl Reader {
    /// Takes what it needs from the front of `bytes`.
    pub(super) fn step(&mut self, bytes: &mut &[u8]) -> Result<Step, MuxError> {
        if let Some(closing) = self.closing {
            return Ok(self.read_reason(closing, bytes));
        }
        let now = (HEADER_BYTES - self.have).min(bytes.len());
        let (front, rest) = bytes.split_at(now);
        self.header[self.have..self.have + now].copy_from_slice(front);
        self.have += now;
        *bytes = rest;
        if self.have < HEADER_BYTES {
            return Ok(Step::More);
        }
        self.have = 0;
        let header = Header::read(self.header)?;
        if header.kind != Kind::Close {
            return Ok(Step::Frame(header));
        }
        self.closing = Some(header);
        Ok(self.read_reason(header, bytes))
    }

    fn read_reason(&mut self, closing: Header, bytes: &mut &[u8]) -> Step {
        let wanted = usize::try_from(closing.value).unwrap_or(REASON_MAX_BYTES);
        let now = (wanted - self.reason.len()).min(bytes.len());
        let (front, rest) = bytes.split_at(now);
        self.reason.extend_from_slice(front);
        *bytes = rest;
        if self.reason.len() < wanted {
            return Step::More;
        }
        let reason = String::from_utf8_lossy(&self.reason).into_owned();
        Step::Closed { code: closing.stream, reason }
    }
}
