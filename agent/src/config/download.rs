//! When models may be downloaded, and how.

use edge::download::{DownloadPolicy, Window};
use serde::Deserialize;
use std::time::Duration;

/// Downloads of models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Download {
    /// Times of the day in which models may be downloaded, as `01:00-05:30`; all day when empty.
    pub(crate) windows: Vec<Window>,
    /// The clock of this place minus UTC, in minutes: for windows, days and months.
    pub(crate) utc_offset_min: i32,
    /// The most that may be downloaded from midnight to midnight, in bytes; 0 for no limit.
    pub(crate) bytes_per_day: u64,
    /// The most in a calendar month; 0 for no limit.
    pub(crate) bytes_per_month: u64,
    /// How long the cloud may send nothing of what was asked for, in seconds.
    pub(crate) stall_s: u32,
    /// Whether the cloud is asked for files in fewer bytes: as differences, or packed.
    pub(crate) deltas: bool,
}

impl Default for Download {
    fn default() -> Self {
        Self {
            windows: Vec::new(),
            utc_offset_min: 0,
            bytes_per_day: 0,
            bytes_per_month: 0,
            stall_s: 30,
            deltas: true,
        }
    }
}

impl Download {
    pub(crate) fn policy(&self) -> DownloadPolicy {
        let Self { windows, utc_offset_min, bytes_per_day, bytes_per_month, .. } = self.clone();
        DownloadPolicy { windows, utc_offset_min, bytes_per_day, bytes_per_month }
    }

    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_s.max(1).into())
    }
}
