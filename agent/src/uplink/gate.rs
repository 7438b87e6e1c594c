//! What every download passes: how fast it may be, when, and how much of it. `edge::download` decides; here is the
//! clock that it is told, the disk that it is written down on, and the waiting.

use crate::clock::Clock;
use crate::config::Download;
use crate::state::{State, StateError};
use edge::download::{DownloadPolicy, Downloads, Permit, Waiting};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For all downloads of this device.
pub(crate) struct Gate {
    clock: Arc<Clock>,
    state: Arc<State>,
    downloads: Mutex<Downloads>,
    bytes_per_s: AtomicU64,
    stall: Duration,
    deltas: bool,
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", why.as_str())]
pub(crate) struct NotNow {
    pub(crate) why: Waiting,
    /// How long that holds.
    pub(crate) wait: Duration,
}

impl Gate {
    /// Goes on from what was written down.
    pub(crate) fn open(
        settings: &Download,
        bytes_per_s: u64,
        clock: Arc<Clock>,
        state: Arc<State>,
    ) -> Result<Self, StateError> {
        let downloads = Downloads::new(settings.policy(), state.downloads()?);
        Ok(Self {
            clock,
            state,
            downloads: Mutex::new(downloads),
            bytes_per_s: AtomicU64::new(bytes_per_s),
            stall: settings.stall(),
            deltas: settings.deltas,
        })
    }

    fn downloads(&self) -> MutexGuard<'_, Downloads> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fastest from now on, also of downloads under way; 0 for as fast as it goes.
    pub(crate) fn set_rate(&self, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Relaxed);
    }

    /// From now on something else is allowed.
    pub(crate) fn set_policy(&self, policy: DownloadPolicy) {
        self.downloads().set_policy(policy);
    }

    /// How long a sender may say nothing.
    pub(crate) fn stall(&self) -> Duration {
        self.stall
    }

    /// Whether to ask for files in fewer bytes.
    pub(crate) fn wants_deltas(&self) -> bool {
        self.deltas
    }

    /// How many of these bytes may come now; they are written down as spent before they do.
    pub(crate) fn permit(&self, wanted: u64) -> Result<u64, NotNow> {
        let now_s = self.clock.now_s();
        let mut downloads = self.downloads();
        match downloads.permit(now_s) {
            Permit::Go { bytes } => {
                let bytes = bytes.min(wanted);
                if let Some(spent) = downloads.save(bytes) {
                    // What cannot be written down is spent all the same, until the next start.
                    let _ = ::link::durable::aside(|| self.state.keep_downloads(&spent));
                }
                Ok(bytes)
            }
            Permit::Wait { why, until_s } => {
                let wait = u64::try_from(until_s.saturating_sub(now_s)).unwrap_or(0);
                Err(NotNow { why, wait: Duration::from_secs(wait.max(1)) })
            }
        }
    }

    /// So many bytes came.
    pub(crate) fn spend(&self, bytes: u64) {
        self.downloads().spend(bytes);
    }

    /// A download ended: what it did not take is given back.
    pub(crate) fn settle(&self) {
        let mut downloads = self.downloads();
        if let Some(spent) = downloads.spent() {
            let _ = ::link::durable::aside(|| self.state.keep_downloads(&spent)); // as above
        }
    }

    /// Waits until a piece of `bytes`, after one that was due at `due`, is within the allowed
    /// rate. Piece by piece, because the rate may change between two.
    pub(crate) async fn pace(&self, due: Instant, bytes: usize) -> Instant {
        let bytes_per_s = self.bytes_per_s.load(Relaxed);
        if bytes_per_s == 0 {
            return Instant::now();
        }
        let due = due + Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        tokio::time::sleep_until(due.into()).await;
        due
    }
}
