//! What a verdict depends on beside the model and the runtime: the machine, by its memory.

/// A model gets no less than this, for the runtime alone needs some of it.
const MEMORY_MIN_MB: u64 = 128;
/// Where the system does not tell.
const MEMORY_UNKNOWN_MB: u64 = 2048;

/// Half of the memory that this process may have at most: the other half is for the version that
/// answers meanwhile, and for everybody else.
pub(super) fn default_memory_mb() -> u64 {
    let half_mb = models::memory::allowed_bytes().map(|bytes| (bytes / 2) >> 20);
    half_mb.map_or(MEMORY_UNKNOWN_MB, |mb| mb.max(MEMORY_MIN_MB))
}
