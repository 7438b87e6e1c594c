//! What devices have recorded, as they have sealed it: kept whole, found by device, tenant and time, and opened by nobody
//! here. Only counters are in the clear, and summed up for gates and dashboards.
//!
//! A database of its own, for it grows otherwise than what the server must remember: `segments.db`. The keys by which
//! samples can be opened, without which not even the operator can, are in a third one, `keys.db`: what is deleted there
//! is gone for good. Neither is in a backup.

mod crowds;
mod intake;
mod retention;
mod store;

pub(crate) use crowds::{Crowds, OTHERS};
pub(crate) use intake::{Offered, Verdict, judge};
pub use retention::Retention;
pub(crate) use retention::keep_sweeping;
pub(crate) use store::Known;
pub use store::{Filter, Listed, Stored, TelemetryError, TelemetryStore, Whose};

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all batches that are on their way may take in memory, in KiB.
const ROOM_KIB: u32 = 64 << 10;
/// How long a device waits where that is full.
pub(crate) const BUSY_RETRY_MS: u32 = 5_000;
/// How long it waits where the disk's share is full.
pub(crate) const FULL_RETRY_MS: u32 = 600_000;

/// The store, for async callers, and what bounds it.
#[derive(Clone)]
pub struct Telemetry {
    store: Arc<TelemetryStore>,
    room: Arc<Semaphore>,
    /// The most that is kept, in bytes; 0 for no bound.
    bytes_max: u64,
}

impl Telemetry {
    /// Wraps a store that may hold so many bytes.
    pub(crate) fn new(store: TelemetryStore, bytes_max: u64) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        Self { store: Arc::new(store), room, bytes_max }
    }

    /// Room in memory for a batch of so many bytes, if there is any now.
    pub(crate) fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ROOM_KIB);
        self.room.clone().try_acquire_many_owned(kib).ok()
    }

    /// The most that is kept, in bytes; 0 for no bound.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// The store, for callers that may block.
    pub(crate) fn store(&self) -> &TelemetryStore {
        &self.store
    }

    /// Calls a method of the store on a thread that may block.
    ///
    /// # Errors
    /// The method's own, or [`TelemetryError::Closed`] while the process ends.
    pub async fn call<T: Send + 'static>(
        &self,
        method: impl FnOnce(&TelemetryStore) -> Result<T, TelemetryError> + Send + 'static,
    ) -> Result<T, TelemetryError> {
        let store = self.store.clone();
        let joined = tokio::task::spawn_blocking(move || method(&store)).await;
        joined.unwrap_or(Err(TelemetryError::Closed))
    }
}
