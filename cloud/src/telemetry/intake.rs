//! What a segment must be to be kept: whole, of the device that brings it, and what was offered. None of that needs a key.

use protocol::id::{ContentHash, DeviceId};
use telemetry::Class;
use telemetry::open::in_the_clear;
use telemetry::segment::{ENCAPSULATED_BYTES, Segment};
use telemetry::wire::Counters;
use telemetry::wire::record::What;

/// A segment as a device offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) segment: u64,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: ContentHash,
    pub(crate) detached_key: Option<[u8; ENCAPSULATED_BYTES]>,
}

impl Offered {
    /// Reads an offer; nothing of one that makes no sense.
    pub(crate) fn parse(wire: &protocol::wire::TelemetrySegment) -> Option<Self> {
        let sha256 = ContentHash::from_bytes(wire.sha256.as_ref().try_into().ok()?);
        let detached_key = match wire.detached_key.as_ref() {
            [] => None,
            key => Some(key.try_into().ok()?),
        };
        let (segment, size_bytes) = (wire.segment, wire.size_bytes);
        let fits = size_bytes <= telemetry::limits::SEGMENT_MAX_BYTES as u64;
        let numbered = segment > 0 && i64::try_from(segment).is_ok();
        (fits && numbered).then_some(Self { segment, size_bytes, sha256, detached_key })
    }
}

/// A segment that may be kept.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) offered: Offered,
    pub(crate) segment: Segment,
    pub(crate) bytes: Vec<u8>,
    /// What is in it, where it is in the clear.
    pub(crate) counters: Vec<Counters>,
}

/// Judges what has arrived; says what is wrong with it.
pub(crate) fn judge(
    device: &DeviceId,
    offered: Offered,
    bytes: Vec<u8>,
) -> Result<Verdict, &'static str> {
    if ContentHash::of(&bytes) != offered.sha256 {
        return Err("it is not what was offered");
    }
    let segment = Segment::parse(&bytes).map_err(|_| "it is no whole segment")?;
    if segment.header.device != *device || segment.header.segment != offered.segment {
        return Err("it is another device's, or of another number");
    }
    if segment.header.class.has_detached_key() != offered.detached_key.is_some() {
        return Err("its key is where it should not be");
    }
    let counters = match segment.header.class {
        Class::Counters => read_counters(&bytes, &segment)?,
        _ => Vec::new(),
    };
    Ok(Verdict { offered, segment, bytes, counters })
}

fn read_counters(bytes: &[u8], segment: &Segment) -> Result<Vec<Counters>, &'static str> {
    let records = in_the_clear(bytes, segment).map_err(|_| "its counters cannot be read")?;
    let counters = records.into_iter().filter_map(|record| match record.what {
        Some(What::Counters(counters)) => Some(counters),
        _ => None,
    });
    Ok(counters.collect())
}
