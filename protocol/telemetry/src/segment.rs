//! A segment: a header, and frames behind each other.
//!
//! ```text
//! "ORTLSEG" 1 | header's length, u16 | header | key's length, u16 | encapsulated key | check, 8 B
//! then, as often as there are frames:
//! length, u32 | records, u32 | check, 8 B | body
//! ```
//!
//! Numbers are little-endian. A *check* is the first eight bytes of the SHA-256 of the check before it and of what it
//! stands beside, so it covers everything in front of it: whoever has no key still sees where a segment stops
//! being what was written (a torn tail, bit rot, a frame moved). Forgery is not its business: bodies are sealed, and
//! bound to the header ([`crate::seal`]).

use crate::Class;
use crate::limits::{FRAME_MAX_BYTES, FRAME_MAX_RECORDS, HEADER_MAX_BYTES, SEGMENT_MAX_FRAMES};
use crate::wire::SegmentHeader;
use prost::Message;
use protocol::id::{ContentHash, DeviceId, Hasher};
use std::ops::Range;

/// The format that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;
/// Bytes of an encapsulated key.
pub const ENCAPSULATED_BYTES: usize = 32;
/// Bytes in front of a frame's body.
pub const FRAME_HEAD_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"ORTLSEG\x01";
const CHECK_BYTES: usize = 8;

/// What a segment begins with, besides its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub device: DeviceId,
    /// Its number; never 0.
    pub segment: u64,
    /// What is in it.
    pub class: Class,
    /// For which key it is sealed; nothing in a class that is not.
    pub key_id: Option<ContentHash>,
    /// The device's clock when it was begun, Unix milliseconds.
    pub created_unix_ms: u64,
    /// The segment of the class before it, and how many frames that had; 0 where there is none.
    pub previous: (u64, u32),
}

/// Why bytes are no segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSegment {
    /// They begin otherwise.
    #[error("no segment of telemetry")]
    NoSegment,
    /// A format that this program does not know.
    #[error("a segment of format {0}; this program knows {FORMAT}")]
    Format(u32),
    /// The header is not what was written, or says what cannot be.
    #[error("the segment's header is damaged")]
    Header,
    /// A frame is beyond its limits.
    #[error("frame {0} is beyond its limits")]
    Limits(u32),
    /// What is behind the last good frame is none.
    #[error("the segment is damaged behind frame {frames}, at byte {at}")]
    Damaged {
        /// Good frames in front of it.
        frames: u32,
        /// Where they end.
        at: usize,
    },
}

/// The running check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check([u8; CHECK_BYTES]);

impl Check {
    fn of(before: Self, parts: &[&[u8]]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(&before.0);
        parts.iter().for_each(|part| hasher.update(part));
        let hash = hasher.finish();
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
        Self(check)
    }
}

impl Header {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (previous, previous_frames) = self.previous;
        SegmentHeader {
            format: FORMAT,
            device: self.device.to_string(),
            segment: self.segment,
            class: self.class.into(),
            key_id: self.key_id.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
            created_unix_ms: self.created_unix_ms,
            previous,
            previous_frames,
        }
        .encode_to_vec()
    }

    fn parse(bytes: &[u8]) -> Result<Self, InvalidSegment> {
        let damaged = || InvalidSegment::Header;
        let read = SegmentHeader::decode(bytes).map_err(|_| damaged())?;
        if read.format != FORMAT {
            return Err(InvalidSegment::Format(read.format));
        }
        let class = Class::try_from(read.class).map_err(|_| damaged())?;
        let key_id = match read.key_id.as_slice() {
            [] => None,
            bytes => Some(ContentHash::from_bytes(bytes.try_into().map_err(|_| damaged())?)),
        };
        if read.segment == 0 || class.is_sealed() != key_id.is_some() {
            return Err(damaged());
        }
        Ok(Self {
            device: read.device.parse().map_err(|_| damaged())?,
            segment: read.segment,
            class,
            key_id,
            created_unix_ms: read.created_unix_ms,
            previous: (read.previous, read.previous_frames),
        })
    }
}

/// The beginning of a segment, with its encapsulated key unless there is none, or it is kept apart.
pub(crate) fn head(header: &[u8], encapsulated: &[u8]) -> (Vec<u8>, Check) {
    let mut head = MAGIC.to_vec();
    for part in [header, encapsulated] {
        let length = u16::try_from(part.len()).expect("both are a few hundred bytes at most");
        head.extend(length.to_le_bytes());
        head.extend(part);
    }
    let check = Check::of(Check([0; CHECK_BYTES]), &[&head]);
    head.extend(check.0);
    (head, check)
}

/// A frame as it lies in the segment, and the check that the next one stands on.
pub(crate) fn frame(before: Check, records: u32, body: &[u8]) -> (Vec<u8>, Check) {
    let length = u32::try_from(body.len()).expect("a frame is bounded").to_le_bytes();
    let records = records.to_le_bytes();
    let check = Check::of(before, &[&length, &records, body]);
    let frame = [&length, &records, check.0.as_slice(), body].concat();
    (frame, check)
}

/// A frame of a segment, unopened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// How many records it holds, as the device says.
    pub records: u32,
    /// Where its body is.
    pub body: Range<usize>,
}

/// A segment whose structure was checked, as far as it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it begins with.
    pub header: Header,
    /// What its bodies are bound to: the header's bytes.
    pub(crate) bound: Range<usize>,
    /// The encapsulated key, where it is in the segment.
    pub encapsulated: Option<[u8; ENCAPSULATED_BYTES]>,
    /// Its good frames, in order.
    pub frames: Vec<Frame>,
    /// Where the last of them ends.
    pub end: usize,
}

impl Segment {
    /// Checks a segment, which must be whole to its last byte.
    ///
    /// # Errors
    /// [`InvalidSegment`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidSegment> {
        let (segment, rest) = Self::parse_front(bytes)?;
        rest.map_or(Ok(segment), Err)
    }

    /// The good front of a segment, and what is wrong behind it, if anything is: how a device sees what a power cut
    /// or a rotten disk has left.
    ///
    /// # Errors
    /// Its header is not good either.
    pub fn parse_front(bytes: &[u8]) -> Result<(Self, Option<InvalidSegment>), InvalidSegment> {
        let (mut segment, mut check) = parse_head(bytes)?;
        let wrong = loop {
            if segment.end == bytes.len() {
                break None;
            }
            match next_frame(bytes, &segment, check) {
                Ok((frame, next)) => {
                    (segment.end, check) = (frame.body.end, next);
                    segment.frames.push(frame);
                }
                Err(error) => break Some(error),
            }
        };
        Ok((segment, wrong))
    }

    /// How many records its good frames hold, as the device says.
    pub fn records(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.records)).sum()
    }
}

fn parse_head(bytes: &[u8]) -> Result<(Segment, Check), InvalidSegment> {
    if !bytes.starts_with(MAGIC) {
        return Err(InvalidSegment::NoSegment);
    }
    let bound = part(bytes, MAGIC.len(), HEADER_MAX_BYTES)?;
    let key = part(bytes, bound.end, ENCAPSULATED_BYTES)?;
    let end = key.end + CHECK_BYTES;
    let said = bytes.get(key.end..end).ok_or(InvalidSegment::Header)?;
    let check = Check::of(Check([0; CHECK_BYTES]), &[&bytes[..key.end]]);
    if said != check.0 {
        return Err(InvalidSegment::Header);
    }
    let header = Header::parse(&bytes[bound.clone()])?;
    let encapsulated = match &bytes[key] {
        [] => None,
        bytes => Some(bytes.try_into().map_err(|_| InvalidSegment::Header)?),
    };
    if encapsulated.is_some() != (header.class.is_sealed() && !header.class.has_detached_key()) {
        return Err(InvalidSegment::Header);
    }
    Ok((Segment { header, bound, encapsulated, frames: Vec::new(), end }, check))
}

/// Where a part is whose length stands in front of it.
fn part(bytes: &[u8], at: usize, most: usize) -> Result<Range<usize>, InvalidSegment> {
    let length = bytes.get(at..at + 2).ok_or(InvalidSegment::Header)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (start, end) = (at + 2, at + 2 + length);
    if length > most || end > bytes.len() {
        return Err(InvalidSegment::Header);
    }
    Ok(start..end)
}

fn next_frame(
    bytes: &[u8],
    segment: &Segment,
    before: Check,
) -> Result<(Frame, Check), InvalidSegment> {
    let at = segment.end;
    let frames = u32::try_from(segment.frames.len()).unwrap_or(u32::MAX);
    let damaged = InvalidSegment::Damaged { frames, at };
    let Some(head) = bytes.get(at..at + FRAME_HEAD_BYTES) else { return Err(damaged) };
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, records) = (number(0), number(4));
    let Some(body) =
        bytes.get(at + FRAME_HEAD_BYTES..).and_then(|rest| rest.get(..length as usize))
    else {
        return Err(damaged);
    };
    let check = Check::of(before, &[&head[..8], body]);
    if head[8..] != check.0 {
        return Err(damaged);
    }
    if length as usize > FRAME_MAX_BYTES
        || records > FRAME_MAX_RECORDS
        || frames >= SEGMENT_MAX_FRAMES
    {
        return Err(InvalidSegment::Limits(frames));
    }
    let start = at + FRAME_HEAD_BYTES;
    Ok((Frame { records, body: start..start + body.len() }, check))
}
