//! What the spool finds at its start. After a power cut an open segment may end in the middle of a frame: it is cut
//! where its good frames end. A closed one that is not whole was damaged by the disk: its good front is kept, and what
//! is lost with the rest is counted exactly, since the index knows how many records there were.

use super::spool::{Spool, SpoolError, read_key};
use crate::state::{DroppedRow, SegmentRow};
use ::link::durable;
use edge::spool::shelf::Cause;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use telemetry::segment::Segment;

impl Spool {
    /// Puts index and folder in order.
    pub(super) fn recover(&self) -> Result<(), SpoolError> {
        let _ = durable::sweep(&self.folder)?;
        let rows = self.parts.state.segments()?;
        for row in &rows {
            self.recover_segment(row)?;
        }
        self.sweep(&rows.iter().map(|row| row.segment).collect())
    }

    fn recover_segment(&self, row: &SegmentRow) -> Result<(), SpoolError> {
        let path = self.path(row.segment);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        // A closed one ends where the index says: a failed write may have left something behind that.
        let end =
            if row.closed { usize::try_from(row.bytes).unwrap_or(usize::MAX) } else { bytes.len() };
        let bytes = &bytes[..end.min(bytes.len())];
        let good = Segment::parse_front(bytes).ok().map(|(front, _)| front);
        let good = good.filter(|front| {
            let is_it = (front.header.segment, front.header.class) == (row.segment, row.class)
                && front.header.device == self.parts.device;
            let has_key =
                !row.class.has_detached_key() || read_key(&self.key_path(row.segment)).is_ok();
            is_it && has_key && !front.frames.is_empty()
        });
        let (kept, frames, records) = match &good {
            Some(front) => (front.end as u64, front.frames.len(), front.records()),
            None => (0, 0, 0),
        };
        let (lost, lost_bytes) =
            (row.records.saturating_sub(records), row.bytes.saturating_sub(kept));
        let dropped = (row.closed && lost > 0).then(|| {
            self.parts.counters.telemetry_damaged(row.segment, "it is not what was written");
            self.parts.counters.telemetry_dropped(row.class, Cause::Damage, lost);
            DroppedRow { class: row.class, cause: Cause::Damage, records: lost, bytes: lost_bytes }
        });
        if good.is_none() {
            self.parts.state.forget_segments(&[row.segment], dropped.as_slice())?;
            self.remove_files(row.segment);
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        if file.metadata()?.len() > kept {
            file.set_len(kept)?;
            file.sync_all()?;
        }
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        let row = SegmentRow { bytes: kept, records, frames, closed: true, ..row.clone() };
        self.parts.state.close_segment(&row)?;
        self.parts.state.forget_segments(&[], dropped.as_slice())?;
        self.found(&row);
        Ok(())
    }

    /// Removes files that no row knows: of segments that the cloud has, or that never began.
    fn sweep(&self, known: &BTreeSet<u64>) -> Result<(), SpoolError> {
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| {
                let number = name.strip_suffix(".seg").or(name.strip_suffix(".key"))?;
                number.parse().ok()
            });
            if let Some(number) = number.filter(|number| !known.contains(number)) {
                self.remove_files(number);
            }
        }
        Ok(())
    }
}
