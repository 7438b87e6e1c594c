//! The spool on the disk: one file for each segment, and an index of them in the state database. `edge::spool` decides;
//! here is the disk, and what it does to what was written.
//!
//! What [`Spool::commit`] has counted as recorded is durable: frame and file are synced before it returns. A segment that
//! fails to take a frame takes no more (its context would seal two things with one number else): it ends at its last
//! synced byte, and the next records begin another one.

use super::unix_ms;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::state::{DroppedRow, Numbers, RECORDS_RESERVED, SegmentRow, State, StateError};
use ::link::durable::{self, Access};
use edge::spool::SpoolPolicy;
use edge::spool::shelf::{Cause, Entry, Shelf, ShelfPolicy};
use protocol::id::DeviceId;
use protocol::problem::chain;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use telemetry::Class;
use telemetry::key::PublicKey;
use telemetry::record::encoded_len;
use telemetry::seal::{Beginning, Begun, SealError, Sealer};
use telemetry::segment::{ENCAPSULATED_BYTES, Segment};
use telemetry::wire::Record;
use tokio::sync::Notify;

/// What the spool works with.
pub(crate) struct Parts {
    pub(crate) device: DeviceId,
    pub(crate) state: Arc<State>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) policy: SpoolPolicy,
    pub(crate) room: ShelfPolicy,
}

/// All segments of this device that were not taken by the cloud yet.
pub(crate) struct Spool {
    pub(super) folder: PathBuf,
    pub(super) parts: Parts,
    inner: Mutex<Inner>,
    /// Rung when there is one more to be sent.
    pub(crate) changed: Notify,
}

/// What changes.
#[derive(Default)]
struct Inner {
    open: BTreeMap<Class, Open>,
    shelf: Shelf,
    key: Option<PublicKey>,
    /// The number of the next record, and the first that is not reserved.
    record: (u64, u64),
    hour: u64,
    /// What was given up and is not in the index yet.
    unwritten: Vec<DroppedRow>,
}

/// A segment that is written to.
struct Open {
    sealer: Sealer,
    file: File,
    begun: Instant,
    hour: u64,
    /// What is safe of it: bytes, frames and records.
    synced: (u64, u32, u64),
}

/// Why records did not come onto the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("the disk failed")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl SpoolError {
    fn cause(&self) -> Cause {
        match self {
            Self::Disk(_) | Self::State(_) => Cause::Disk,
            Self::Seal(_) => Cause::Room,
        }
    }
}

/// A segment as it is sent.
pub(crate) struct Ready {
    pub(crate) bytes: Vec<u8>,
    pub(crate) detached_key: Option<[u8; ENCAPSULATED_BYTES]>,
}

impl Spool {
    /// Opens the folder, and puts in order what a power cut has left.
    ///
    /// # Errors
    /// Folder or index cannot be read.
    pub(crate) fn open(folder: PathBuf, parts: Parts) -> Result<Self, SpoolError> {
        durable::create_private_folder(&folder)?;
        let inner = Mutex::new(Inner { hour: parts.state.telemetry_hours()?, ..Inner::default() });
        let spool = Self { folder, parts, inner, changed: Notify::new() };
        spool.recover()?;
        Ok(spool)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a segment.
    pub(super) fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:012}.seg"))
    }

    /// Where its encapsulated key is, where that is kept apart.
    pub(super) fn key_path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:012}.key"))
    }

    /// For whom is sealed from now on. Segments of another key are closed.
    pub(crate) fn set_key(&self, key: Option<PublicKey>) {
        let mut inner = self.inner();
        let same = inner.key.as_ref().map(PublicKey::id) == key.as_ref().map(PublicKey::id);
        if !same {
            let sealed: Vec<Class> = inner.open.keys().copied().filter(|c| c.is_sealed()).collect();
            sealed.into_iter().for_each(|class| self.close(&mut inner, class));
            inner.key = key;
        }
    }

    /// Whether anything but counters can be recorded.
    pub(crate) fn has_key(&self) -> bool {
        self.inner().key.is_some()
    }

    /// Writes records down; when this returns they are durable, or counted as given up.
    pub(crate) fn commit(&self, records: Vec<Record>, now: Instant) {
        let mut inner = self.inner();
        let mut by_class: BTreeMap<Class, Vec<Record>> = BTreeMap::new();
        for record in records {
            if let Some(class) = record.class() {
                by_class.entry(class).or_default().push(record);
            }
        }
        for (class, records) in by_class {
            let (count, bytes) = (records.len() as u64, encoded_len(&records) as u64);
            match self.append(&mut inner, class, records, now) {
                Ok(numbers) => self.parts.counters.telemetry_recorded(class, numbers, count),
                Err(error) => {
                    self.parts.counters.telemetry_not_written(&error);
                    self.abandon(&mut inner, class);
                    let cause = error.cause();
                    self.give_up(&mut inner, DroppedRow { class, cause, records: count, bytes });
                }
            }
        }
        self.close_due(&mut inner, now);
        self.settle(&mut inner);
    }

    /// Records that never came so far.
    pub(crate) fn lost_before(&self, class: Class, records: u64) {
        let mut inner = self.inner();
        self.give_up(&mut inner, DroppedRow { class, cause: Cause::Queue, records, bytes: 0 });
    }

    /// Writes records of one class down; the numbers of the first and the last of them.
    fn append(
        &self,
        inner: &mut Inner,
        class: Class,
        mut records: Vec<Record>,
        now: Instant,
    ) -> Result<(u64, u64), SpoolError> {
        self.number(inner, &mut records)?;
        let number = |record: Option<&Record>| record.map_or(0, |record| record.number);
        let numbers = (number(records.first()), number(records.last()));
        if !inner.open.contains_key(&class) {
            let open = self.begin(class, inner.key.as_ref(), inner.hour, now)?;
            inner.open.insert(class, open);
        }
        let open = inner.open.get_mut(&class).expect("it was inserted");
        let count = records.len() as u64;
        let frame = open.sealer.frame(records)?;
        open.file.write_all(&frame)?;
        open.file.sync_data()?;
        let (bytes, frames, before) = open.synced;
        open.synced = (bytes + frame.len() as u64, frames + 1, before + count);
        Ok(numbers)
    }

    /// Numbers records in the order in which they came.
    fn number(&self, inner: &mut Inner, records: &mut [Record]) -> Result<(), SpoolError> {
        for record in records {
            if inner.record.0 == inner.record.1 {
                let first = self.parts.state.reserve_records()?;
                inner.record = (first, first + RECORDS_RESERVED);
            }
            record.number = inner.record.0 + 1; // 0 is no number
            inner.record.0 += 1;
        }
        Ok(())
    }

    fn begin(
        &self,
        class: Class,
        key: Option<&PublicKey>,
        hour: u64,
        now: Instant,
    ) -> Result<Open, SpoolError> {
        if class.is_sealed() && key.is_none() {
            return Err(SealError::NoKey.into());
        }
        let Numbers { segment, previous } = self.parts.state.begin_segment(class, hour)?;
        let device = self.parts.device.clone();
        let now_unix_ms = unix_ms(&self.parts.clock);
        let beginning = Beginning { device, segment, class, now_unix_ms, previous };
        let (sealer, Begun { head, detached_key }) =
            Sealer::begin(beginning, key, ::link::entropy())?;
        if let Some(key) = detached_key {
            durable::write(&self.key_path(segment), &key, Access::Private)?;
        }
        let mut file = create_private(&self.path(segment))?;
        file.write_all(&head)?;
        durable::sync_folder(&self.folder)?;
        let synced = (head.len() as u64, 0, 0);
        Ok(Open { sealer, file, begun: now, hour, synced })
    }

    /// A segment took a frame in part, or may have: what was synced before stays.
    fn abandon(&self, inner: &mut Inner, class: Class) {
        if inner.open.contains_key(&class) {
            self.close(inner, class);
        }
    }

    fn close_due(&self, inner: &mut Inner, now: Instant) {
        let is_due = |open: &Open| {
            let age = now.saturating_duration_since(open.begun);
            self.parts.policy.closes(age, open.sealer.size_bytes())
        };
        let due: Vec<Class> =
            inner.open.iter().filter(|(_, open)| is_due(open)).map(|(class, _)| *class).collect();
        due.into_iter().for_each(|class| self.close(inner, class));
    }

    /// Closes what is old enough.
    pub(crate) fn tick(&self, now: Instant) {
        let mut inner = self.inner();
        self.close_due(&mut inner, now);
        self.settle(&mut inner);
    }

    /// Closes all segments.
    pub(crate) fn close_all(&self) {
        let mut inner = self.inner();
        let open: Vec<Class> = inner.open.keys().copied().collect();
        open.into_iter().for_each(|class| self.close(&mut inner, class));
        self.settle(&mut inner);
    }

    /// One more hour of operation.
    pub(crate) fn hour(&self) {
        let mut inner = self.inner();
        inner.hour += 1;
        if let Err(error) = self.parts.state.telemetry_hour() {
            self.parts.counters.telemetry_not_written(&error);
        }
    }

    fn close(&self, inner: &mut Inner, class: Class) {
        let Some(open) = inner.open.remove(&class) else { return };
        let (bytes, frames, records) = open.synced;
        let segment = open.sealer.segment();
        let hour = open.hour;
        if frames == 0 {
            return self.remove(inner, &[segment], &[]);
        }
        let row = SegmentRow { segment, class, bytes, records, frames, hour, closed: true };
        // What the index does not learn now it learns at the next start, from the file.
        if let Err(error) = self.parts.state.close_segment(&row) {
            self.parts.counters.telemetry_not_written(&error);
        }
        self.shelve(inner, &row);
    }

    fn shelve(&self, inner: &mut Inner, row: &SegmentRow) {
        let SegmentRow { segment, class, bytes, records, hour, .. } = *row;
        inner.shelf.put(Entry { segment, class, bytes, records, hour });
        self.changed.notify_one();
    }

    /// A segment that was found at the start.
    pub(super) fn found(&self, row: &SegmentRow) {
        self.shelve(&mut self.inner(), row);
    }

    fn give_up(&self, inner: &mut Inner, row: DroppedRow) {
        if row.records > 0 || row.bytes > 0 {
            self.parts.counters.telemetry_dropped(row.class, row.cause, row.records);
            inner.unwritten.push(row);
        }
    }

    /// Makes room, and writes down what was given up.
    fn settle(&self, inner: &mut Inner) {
        while let Some((entry, cause)) = inner.shelf.poll_victim(&self.parts.room, inner.hour) {
            inner.shelf.take(entry.class, entry.segment);
            let Entry { segment, class, bytes, records, .. } = entry;
            self.parts.counters.telemetry_dropped(class, cause, records);
            self.remove(inner, &[segment], &[DroppedRow { class, cause, records, bytes }]);
        }
        if !inner.unwritten.is_empty()
            && self.parts.state.forget_segments(&[], &inner.unwritten).is_ok()
        {
            inner.unwritten.clear();
        }
    }

    /// Takes segments out of the index, and then off the disk: a file without a row is swept at the next start.
    fn remove(&self, inner: &mut Inner, segments: &[u64], dropped: &[DroppedRow]) {
        match self.parts.state.forget_segments(segments, dropped) {
            Ok(()) => {}
            Err(error) => {
                inner.unwritten.extend_from_slice(dropped);
                return self.parts.counters.telemetry_not_written(&error);
            }
        }
        for segment in segments {
            self.remove_files(*segment);
        }
    }

    pub(super) fn remove_files(&self, segment: u64) {
        let _ = std::fs::remove_file(self.key_path(segment)); // most have none
        if let Err(error) = std::fs::remove_file(self.path(segment))
            && error.kind() != io::ErrorKind::NotFound
        {
            self.parts.counters.telemetry_not_written(&error);
        }
    }

    /// Whatever is asked of the shelf, with the hour of operation.
    pub(crate) fn with_shelf<T>(&self, ask: impl FnOnce(&Shelf) -> T) -> T {
        ask(&self.inner().shelf)
    }

    /// A segment as it is sent, if it still is what was written; what is damaged is given up, and counted.
    pub(crate) fn read(&self, entry: &Entry) -> Option<Ready> {
        match self.read_whole(entry) {
            Ok(ready) => Some(ready),
            Err(why) => {
                self.parts.counters.telemetry_damaged(entry.segment, &why);
                self.forget(entry, Some(Cause::Damage));
                None
            }
        }
    }

    fn read_whole(&self, entry: &Entry) -> Result<Ready, String> {
        let mut bytes = std::fs::read(self.path(entry.segment)).map_err(|e| e.to_string())?;
        // Behind its end there may be what a failed write has left.
        bytes.truncate(usize::try_from(entry.bytes).unwrap_or(usize::MAX));
        let segment = Segment::parse(&bytes).map_err(|e| e.to_string())?;
        let Entry { segment: number, class, records, .. } = *entry;
        if (segment.header.segment, segment.header.class) != (number, class)
            || segment.records() != records
        {
            return Err("it is another segment".into());
        }
        let detached_key = match class.has_detached_key() {
            false => None,
            true => Some(read_key(&self.key_path(number)).map_err(|e| e.to_string())?),
        };
        Ok(Ready { bytes, detached_key })
    }

    /// The cloud has it, or will not: it goes.
    pub(crate) fn forget(&self, entry: &Entry, given_up: Option<Cause>) {
        let mut inner = self.inner();
        if inner.shelf.take(entry.class, entry.segment).is_none() {
            return; // room was made meanwhile
        }
        let Entry { segment, class, bytes, records, .. } = *entry;
        let dropped = given_up.map(|cause| DroppedRow { class, cause, records, bytes });
        if let Some(row) = &dropped {
            self.parts.counters.telemetry_dropped(row.class, row.cause, row.records);
        }
        self.remove(&mut inner, &[segment], dropped.as_slice());
    }

    /// What was given up since the device was enrolled.
    pub(crate) fn dropped(&self) -> Vec<DroppedRow> {
        let inner = self.inner();
        let mut rows = self.parts.state.dropped().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "what was given up cannot be read");
            Vec::new()
        });
        for row in &inner.unwritten {
            let same =
                |known: &&mut DroppedRow| (known.class, known.cause) == (row.class, row.cause);
            match rows.iter_mut().find(same) {
                Some(known) => {
                    (known.records, known.bytes) =
                        (known.records + row.records, known.bytes + row.bytes)
                }
                None => rows.push(row.clone()),
            }
        }
        rows
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(super) fn read_key(path: &Path) -> io::Result<[u8; ENCAPSULATED_BYTES]> {
    let bytes = std::fs::read(path)?;
    bytes.try_into().map_err(|_| io::Error::other("the encapsulated key is damaged"))
}
