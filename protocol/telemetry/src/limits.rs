//! Every limit of a segment. Each is checked before anything is allocated for what it bounds.

/// A segment's header: 1 KiB.
pub const HEADER_MAX_BYTES: usize = 1 << 10;
/// One frame as it lies in a segment: 1 MiB.
pub const FRAME_MAX_BYTES: usize = 1 << 20;
/// The records of one frame before they are packed: 4 MiB.
pub const BATCH_MAX_BYTES: usize = 4 << 20;
/// Records in one frame.
pub const FRAME_MAX_RECORDS: u32 = 1 << 16;
/// A whole segment: 4 MiB.
pub const SEGMENT_MAX_BYTES: usize = 4 << 20;
/// Frames of one segment.
pub const SEGMENT_MAX_FRAMES: u32 = 1 << 16;
