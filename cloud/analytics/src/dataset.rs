//! The dataset's folder: Parquet files that are there whole or not at all, and a journal of what is in them.
//!
//! ```text
//! journal.sqlite3                                   what was imported, and which files hold it
//! staging/                                          files that are being written
//! inference/day=2026-11-26/model=speech/0000001a.parquet
//! ```
//!
//! A file is written into `staging/`, named by the journal together with what was imported into it (one transaction), and
//! only then put in its place. After a crash the journal knows: what it does not name is thrown away, what it names is put in
//! its place. So no record is there twice or half, and other tools that read the folders see whole files only.

use protocol::id::DeviceId;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::AnalyticsError;
use crate::tables::Table;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS segments (
    device  TEXT NOT NULL,
    segment INTEGER NOT NULL,
    frames  INTEGER NOT NULL,
    PRIMARY KEY (device, segment)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path   TEXT PRIMARY KEY, -- below the dataset's folder
    rows   INTEGER NOT NULL,
    placed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS devices (
    path   TEXT NOT NULL REFERENCES files (path) ON DELETE CASCADE,
    device TEXT NOT NULL,
    PRIMARY KEY (device, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names (
    last INTEGER PRIMARY KEY AUTOINCREMENT -- that was given to files of one writing
) STRICT;
";

/// A folder of Parquet files with its journal.
#[derive(Debug)]
pub struct Dataset {
    folder: PathBuf,
    journal: Connection,
    /// Held while it may be written.
    lock: Option<File>,
}

/// A file that was written and is to be put in its place.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// Its place, below the dataset's folder; its name in `staging/` is the last part.
    pub(crate) path: String,
    pub(crate) rows: u64,
    pub(crate) devices: Vec<String>,
}

/// How many frames of which segments have been imported.
pub(crate) type Imported = BTreeMap<(DeviceId, u64), u32>;

impl Dataset {
    /// Opens it to be read and written, and makes it where there is none. What a crash has left is put in order.
    ///
    /// # Errors
    /// [`AnalyticsError::Busy`], or the folder cannot be written.
    pub fn open(folder: &Path) -> Result<Self, AnalyticsError> {
        let staging = folder.join("staging");
        fs::create_dir_all(&staging).map_err(AnalyticsError::file(&staging))?;
        let lock = File::open(folder).map_err(AnalyticsError::file(folder))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(AnalyticsError::Busy(folder.to_owned()));
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(AnalyticsError::file(folder)(source));
            }
        }
        let journal = Connection::open(folder.join("journal.sqlite3"))?;
        journal.pragma_update(None, "synchronous", "FULL")?;
        journal.pragma_update(None, "foreign_keys", true)?;
        journal.execute_batch(SCHEMA)?;
        let dataset = Self { folder: folder.to_owned(), journal, lock: Some(lock) };
        dataset.place_all()?;
        dataset.clear_staging()?;
        Ok(dataset)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a table.
    pub fn table(&self, table: Table) -> PathBuf {
        self.folder.join(table.as_str())
    }

    /// Rows in all files.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rows(&self) -> Result<u64, AnalyticsError> {
        let sum = "SELECT coalesce(sum(rows), 0) FROM files";
        let sum: i64 = self.journal.query_row(sum, [], |row| row.get(0))?;
        Ok(sum.cast_unsigned())
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.folder.join("staging")
    }

    /// How many frames of a segment are in here.
    pub(crate) fn frames_of(&self, device: &DeviceId, segment: u64) -> Result<u32, AnalyticsError> {
        let sql = "SELECT frames FROM segments WHERE device = ? AND segment = ?";
        let frames = self
            .journal
            .query_row(sql, params![device.as_str(), segment.cast_signed()], |row| row.get(0))
            .optional()?;
        Ok(frames.unwrap_or(0))
    }

    /// A name that no file has or had.
    pub(crate) fn fresh_name(&self) -> Result<String, AnalyticsError> {
        self.journal.execute("DELETE FROM names", [])?;
        self.journal.execute("INSERT INTO names DEFAULT VALUES", [])?;
        Ok(format!("{:08x}", self.journal.last_insert_rowid()))
    }

    /// Takes in what was written: from here on it is in the dataset, whatever happens to this process.
    pub(crate) fn commit(
        &mut self,
        imported: &Imported,
        staged: &[Staged],
    ) -> Result<(), AnalyticsError> {
        debug_assert!(self.lock.is_some());
        let transaction = self.journal.transaction()?;
        let sql = "INSERT INTO segments VALUES (?1, ?2, ?3) ON CONFLICT (device, segment) DO UPDATE SET frames = ?3";
        for ((device, segment), frames) in imported {
            transaction.execute(sql, params![device.as_str(), segment.cast_signed(), frames])?;
        }
        stage(&transaction, staged)?;
        transaction.commit()?;
        self.place_all()
    }

    /// Removes all that a device has told: its rows, and its segments' entries. `rewrite` makes a file without that
    /// device out of a file, in `staging/`, and says what is left.
    pub(crate) fn forget(
        &mut self,
        device: &DeviceId,
        rewrite: impl Fn(&Path, &Path) -> Result<u64, AnalyticsError>,
    ) -> Result<u64, AnalyticsError> {
        let mut removed = 0;
        for (path, rows) in self.files_of(device)? {
            let name = Path::new(&path).file_name().unwrap_or_default();
            let staged = self.staging().join(name);
            let left = rewrite(&self.folder.join(&path), &staged)?;
            removed += rows - left;
            let transaction = self.journal.transaction()?;
            let own = params![path, device.as_str()];
            transaction.execute("DELETE FROM devices WHERE path = ? AND device = ?", own)?;
            transaction.execute(
                "UPDATE files SET rows = ?, placed = 0 WHERE path = ?",
                params![left.cast_signed(), path],
            )?;
            transaction.commit()?;
            self.place_all()?;
        }
        // The segments stay in the journal: what was forgotten does not come back with the next import.
        Ok(removed)
    }

    fn files_of(&self, device: &DeviceId) -> Result<Vec<(String, u64)>, AnalyticsError> {
        let sql =
            "SELECT path, rows FROM files JOIN devices USING (path) WHERE device = ? ORDER BY path";
        let mut statement = self.journal.prepare(sql)?;
        let rows = statement.query_map([device.as_str()], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Puts every file in its place that the journal names and that is not there yet.
    fn place_all(&self) -> Result<(), AnalyticsError> {
        let mut statement =
            self.journal.prepare("SELECT path, rows FROM files WHERE placed = 0")?;
        let waiting = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        for (path, rows) in waiting.collect::<Result<Vec<_>, _>>()? {
            self.place(&path, rows)?;
        }
        Ok(())
    }

    fn place(&self, path: &str, rows: u64) -> Result<(), AnalyticsError> {
        let place = self.folder.join(path);
        let staged = self.staging().join(place.file_name().unwrap_or_default());
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(AnalyticsError::file(folder))?;
        }
        match rows {
            0 => remove(&place)?,
            // Gone from staging: it was placed before the crash that left this entry.
            _ if !staged.exists() => {}
            _ => fs::rename(&staged, &place).map_err(AnalyticsError::file(&place))?,
        }
        if let Some(folder) = place.parent() {
            sync_folder(folder)?;
        }
        let sql = match rows {
            0 => "DELETE FROM files WHERE path = ?",
            _ => "UPDATE files SET placed = 1 WHERE path = ?",
        };
        self.journal.execute(sql, [path])?;
        Ok(())
    }

    fn clear_staging(&self) -> Result<(), AnalyticsError> {
        let staging = self.staging();
        for entry in fs::read_dir(&staging).map_err(AnalyticsError::file(&staging))? {
            remove(&entry.map_err(AnalyticsError::file(&staging))?.path())?;
        }
        Ok(())
    }
}

fn stage(transaction: &Transaction<'_>, staged: &[Staged]) -> Result<(), AnalyticsError> {
    for Staged { path, rows, devices } in staged {
        transaction
            .execute("INSERT INTO files VALUES (?, ?, 0)", params![path, rows.cast_signed()])?;
        for device in devices {
            transaction.execute("INSERT INTO devices VALUES (?, ?)", params![path, device])?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), AnalyticsError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(AnalyticsError::file(path)(source))
        }
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), AnalyticsError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(AnalyticsError::file(folder))
}
