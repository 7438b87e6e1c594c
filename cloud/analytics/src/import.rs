//! Sealed segments become rows: opened with the private key, each frame once.

use protocol::id::DeviceId;
use protocol::tuf::date::date_of;
use std::path::Path;
use telemetry::key::PrivateKey;
use telemetry::open::{OpenError, Opener};
use telemetry::segment::{ENCAPSULATED_BYTES, InvalidSegment, Segment};

use crate::AnalyticsError;
use crate::dataset::{Dataset, Imported};
use crate::tables::rows_of;
use crate::write::{Waiting, copy_without};

/// Rows in memory before they are written: about 300 MB at most.
const WAITING_MAX_ROWS: usize = 500_000;
/// A record whose clock is so many days off the import's own stands under `day=unknown`.
const PLAUSIBLE_DAYS: u64 = 400;
const DAY_MS: u64 = 86_400_000;

/// A segment as it came.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// All of its bytes.
    pub bytes: &'a [u8],
    /// Its encapsulated key, of a class that keeps it apart.
    pub detached_key: Option<[u8; ENCAPSULATED_BYTES]>,
}

/// Why a segment is not imported; others are, all the same.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It is damaged, or none.
    #[error(transparent)]
    Invalid(#[from] InvalidSegment),
    /// It does not open.
    #[error(transparent)]
    Closed(#[from] OpenError),
    /// There is no analytics key at all.
    #[error("no analytics key at hand")]
    NoKey,
    /// It cannot be kept.
    #[error(transparent)]
    Dataset(#[from] AnalyticsError),
}

/// What an import has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments of which something was new.
    pub segments: u64,
    /// Segments that were in the dataset already, to their last frame.
    pub known: u64,
    /// Rows that were added.
    pub rows: u64,
}

/// An import under way. Nothing of it is in the dataset until its rows are written, by and by and by [`Import::finish`].
#[derive(Debug)]
pub struct Import<'a> {
    dataset: &'a mut Dataset,
    keys: &'a [PrivateKey],
    now_unix_ms: u64,
    waiting: Waiting,
    imported: Imported,
    report: Report,
}

impl<'a> Import<'a> {
    /// Begins, with all analytics keys at hand. `now_unix_ms` says which clocks are plausible.
    pub fn begin(dataset: &'a mut Dataset, keys: &'a [PrivateKey], now_unix_ms: u64) -> Self {
        let (waiting, imported) = (Waiting::default(), Imported::new());
        Self { dataset, keys, now_unix_ms, waiting, imported, report: Report::default() }
    }

    /// Opens a segment, and adds what is not in the dataset yet.
    ///
    /// # Errors
    /// [`SegmentError`]; nothing of this segment is added then.
    pub fn add(&mut self, sealed: Sealed<'_>) -> Result<(), SegmentError> {
        let segment = Segment::parse(sealed.bytes)?;
        let (device, number) = (segment.header.device.clone(), segment.header.segment);
        let known = self.dataset.frames_of(&device, number)?;
        let frames = u32::try_from(segment.frames.len()).unwrap_or(u32::MAX);
        if frames <= known || self.imported.contains_key(&(device.clone(), number)) {
            self.report.known += 1;
            return Ok(());
        }
        let key = key_of(&segment, self.keys)?;
        let mut opener = Opener::begin(sealed.bytes, &segment, key, sealed.detached_key)?;
        let mut rows = Vec::new();
        let mut at = 0;
        while let Some(records) = opener.next_frame()? {
            if at >= known {
                rows.extend(records.iter().flat_map(|record| rows_of(&segment.header, record)));
            }
            at += 1;
        }
        for row in rows {
            let day = day(row.observed_unix_ms, self.now_unix_ms);
            self.waiting.add(&device, &day, row);
            self.report.rows += 1;
        }
        self.report.segments += 1;
        self.imported.insert((device, number), frames);
        if self.waiting.count() >= WAITING_MAX_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what still waits.
    ///
    /// # Errors
    /// The dataset cannot be written; what was written before stays.
    pub fn finish(mut self) -> Result<Report, AnalyticsError> {
        self.flush()?;
        Ok(self.report)
    }

    fn flush(&mut self) -> Result<(), AnalyticsError> {
        let name = self.dataset.fresh_name()?;
        let staged = self.waiting.write(&self.dataset.staging(), &name)?;
        self.dataset.commit(&std::mem::take(&mut self.imported), &staged)
    }
}

impl Dataset {
    /// Removes all rows of a device, and says how many. Its segments are not imported again.
    ///
    /// # Errors
    /// [`AnalyticsError`]; files that were done stay done.
    pub fn forget_device(&mut self, device: &DeviceId) -> Result<u64, AnalyticsError> {
        self.forget(device, |from: &Path, to: &Path| copy_without(device, from, to))
    }
}

/// The key that a segment is sealed for; any of them for one that is not sealed.
fn key_of<'k>(segment: &Segment, keys: &'k [PrivateKey]) -> Result<&'k PrivateKey, SegmentError> {
    let wanted = segment.header.key_id;
    let fits = |key: &&PrivateKey| wanted.is_none_or(|id| key.public().id() == id);
    keys.iter().find(fits).ok_or(match wanted {
        Some(id) => SegmentError::Closed(OpenError::OtherKey(id)),
        None => SegmentError::NoKey,
    })
}

/// The UTC day of a record as `YYYY-MM-DD`, `unknown` where its clock cannot be right.
fn day(observed_unix_ms: u64, now_unix_ms: u64) -> String {
    let (observed, today) = (observed_unix_ms / DAY_MS, now_unix_ms / DAY_MS);
    if observed + PLAUSIBLE_DAYS < today || observed > today + 1 {
        return "unknown".to_owned();
    }
    let (year, month, day) = date_of(i64::try_from(observed).unwrap_or(i64::MAX / 2));
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc_and_clocks_that_cannot_be_right_have_none() {
        let now = 1_795_700_000_000; // 2026-11-26
        assert_eq!(day(now, now), "2026-11-26");
        assert_eq!(day(1_709_164_800_000, 1_709_164_800_000), "2024-02-29");
        assert_eq!(day(now - 399 * DAY_MS, now), "2025-10-23");
        assert_eq!([day(0, now), day(now + 2 * DAY_MS, now)], ["unknown", "unknown"]);
    }
}
