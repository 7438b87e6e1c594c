//! What this device tells of itself, and what that may cost.

use crate::telemetry::Wanted;
use edge::download::{DownloadPolicy, Window};
use edge::spool::SpoolPolicy;
use edge::spool::sampling::SamplingPolicy;
use edge::spool::shelf::ShelfPolicy;
use edge::spool::upload::UploadPolicy;
use protocol::id::ModelName;
use serde::Deserialize;
use std::time::Duration;

/// Telemetry. Without an analytics key of the operator nothing but counters is kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// Whether anything is recorded at all.
    pub(crate) enabled: bool,
    /// How often sums are taken, in seconds.
    pub(crate) summary_s: u32,
    /// Which requests leave an event: `sampled`, `all` or `none`.
    pub(crate) events: Events,
    /// Events in an hour, where they are sampled.
    pub(crate) events_per_hour: u32,
    /// The longest that a record waits to be written, in seconds; what a power cut may take.
    pub(crate) commit_s: u32,
    /// The longest that what was written waits to be sent, in seconds.
    pub(crate) segment_s: u32,
    /// What may lie on the disk, in MB.
    pub(crate) disk_mb: u32,
    /// Hours of operation that it may lie there.
    pub(crate) keep_h: u32,
    /// The link is paid by the byte: only counters and histograms are sent.
    pub(crate) metered: bool,
    /// Times of the day in which it may be sent, as `01:00-05:30`; all day when empty.
    pub(crate) windows: Vec<Window>,
    /// The clock of this place minus UTC, in minutes: for windows, days and months.
    pub(crate) utc_offset_min: i32,
    /// The most that may be sent from midnight to midnight, in bytes; 0 for no limit.
    pub(crate) bytes_per_day: u64,
    /// The most in a calendar month; 0 for no limit.
    pub(crate) bytes_per_month: u64,
    pub(crate) samples: Samples,
}

/// Inputs that may be kept, sealed, as samples to learn from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Samples {
    /// The models whose inputs may be; those of a model that never leaves the device never are.
    pub(crate) models: Vec<ModelName>,
    /// The share of requests that the device was not sure of.
    pub(crate) hard: f64,
    /// The share of answers that turned out to differ from the cloud's.
    pub(crate) disagreeing: f64,
    /// The share of all others.
    pub(crate) random: f64,
    /// Samples in an hour.
    pub(crate) per_hour: u32,
}

/// Which requests leave an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Events {
    Sampled,
    All,
    None,
}

impl Default for Samples {
    fn default() -> Self {
        Self { models: Vec::new(), hard: 0.05, disagreeing: 1.0, random: 0.001, per_hour: 10 }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            enabled: true,
            summary_s: 3600,
            events: Events::Sampled,
            events_per_hour: 12,
            commit_s: 30,
            segment_s: 3600,
            disk_mb: 64,
            keep_h: 30 * 24,
            metered: false,
            windows: Vec::new(),
            utc_offset_min: 0,
            bytes_per_day: 0,
            bytes_per_month: 0,
            samples: Samples::default(),
        }
    }
}

fn seconds(s: u32) -> Duration {
    Duration::from_secs(s.max(1).into())
}

impl Telemetry {
    pub(crate) fn spool(&self) -> SpoolPolicy {
        let (commit_after, segment_age) = (seconds(self.commit_s), seconds(self.segment_s));
        SpoolPolicy { commit_after, segment_age, ..SpoolPolicy::default() }
    }

    pub(crate) fn room(&self) -> ShelfPolicy {
        let bytes = u64::from(self.disk_mb) * 1_000_000;
        ShelfPolicy { bytes, sample_bytes: bytes / 2, hours: self.keep_h.into() }
    }

    pub(crate) fn summary(&self) -> Duration {
        seconds(self.summary_s)
    }

    pub(crate) fn upload(&self) -> UploadPolicy {
        let Self { windows, utc_offset_min, bytes_per_day, bytes_per_month, .. } = self.clone();
        let bounds = DownloadPolicy { windows, utc_offset_min, bytes_per_day, bytes_per_month };
        UploadPolicy { bounds, metered: self.metered }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        let per_hour = f64::from(self.events_per_hour.max(1));
        let events = match self.events {
            Events::Sampled => SamplingPolicy { per_hour, ..SamplingPolicy::EVENTS },
            Events::All => SamplingPolicy::EVERYTHING,
            Events::None => SamplingPolicy::NOTHING,
        };
        let own = &self.samples;
        let samples = SamplingPolicy {
            rare: own.disagreeing,
            hard: own.hard,
            ordinary: own.random,
            per_hour: f64::from(own.per_hour.max(1)),
        };
        let consented = own.models.iter().map(ToString::to_string).collect();
        Wanted { events, samples, consented }
    }
}
