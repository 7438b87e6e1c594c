//! Records, and the bytes that a frame is made of before it is sealed.

use crate::limits::{BATCH_MAX_BYTES, FRAME_MAX_RECORDS};
use crate::wire::record::What;
use crate::wire::{Record, RecordBatch};
use prost::Message;
use std::io;

use crate::Class;

/// Of 56 KiB of events, level 1 makes 10.8 KB in 54 us, 3 makes 10.9 KB in 69 us, and -1 makes 12.6 KB in 43 us.
const PACKING_LEVEL: i32 = 1;

/// Why bytes are no records.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// More than a frame may hold.
    #[error(
        "{records} records of {bytes} bytes; a frame takes {FRAME_MAX_RECORDS} of {BATCH_MAX_BYTES}"
    )]
    TooMany {
        /// How many.
        records: usize,
        /// Their bytes before they are packed.
        bytes: usize,
    },
    /// They cannot be packed, or were not packed like this.
    #[error("the records cannot be packed or unpacked")]
    Packing(#[source] io::Error),
    /// They are no protobuf message.
    #[error("the records do not decode")]
    Malformed(#[source] prost::DecodeError),
    /// A record that does not belong to the class of its segment.
    #[error("a record that is not of the class {}", .0.as_str())]
    Misplaced(Class),
}

impl Record {
    /// The class that it travels in; nothing of what a newer program recorded.
    pub fn class(&self) -> Option<Class> {
        Some(match self.what.as_ref()? {
            What::Counters(_) => Class::Counters,
            What::Aggregate(_) => Class::Aggregates,
            What::Inference(_) | What::Health(_) | What::Resources(_) | What::Rollout(_) => {
                Class::Events
            }
            What::Sample(_) => Class::Samples,
        })
    }
}

/// Packs records of one class.
///
/// # Errors
/// More than a frame takes, or a record of another class: content would leave in the clear.
pub fn pack(class: Class, records: Vec<Record>) -> Result<Vec<u8>, RecordError> {
    if records.iter().any(|record| record.class() != Some(class)) {
        return Err(RecordError::Misplaced(class));
    }
    let batch = RecordBatch { records };
    let (records, bytes) = (batch.records.len(), batch.encoded_len());
    if records > FRAME_MAX_RECORDS as usize || bytes > BATCH_MAX_BYTES {
        return Err(RecordError::TooMany { records, bytes });
    }
    zstd::bulk::compress(&batch.encode_to_vec(), PACKING_LEVEL).map_err(RecordError::Packing)
}

/// Unpacks what [`pack`] has packed, which may be so many bytes; how many it was, too.
///
/// # Errors
/// [`RecordError`].
pub fn unpack(
    class: Class,
    packed: &[u8],
    most_bytes: usize,
) -> Result<(Vec<Record>, usize), RecordError> {
    let plain = zstd::bulk::decompress(packed, most_bytes).map_err(RecordError::Packing)?;
    let batch = RecordBatch::decode(plain.as_slice()).map_err(RecordError::Malformed)?;
    // A kind of record that this program does not know belongs wherever a newer one has put it.
    let is_elsewhere = |record: &Record| record.class().is_some_and(|own| own != class);
    match batch.records.iter().any(is_elsewhere) {
        true => Err(RecordError::Misplaced(class)),
        false => Ok((batch.records, plain.len())),
    }
}

/// Bytes of records before they are packed.
pub fn encoded_len(records: &[Record]) -> usize {
    records.iter().map(Message::encoded_len).sum()
}
