//! The repository's files, and what the director last said to each device.

use fleet::repository::{File, Newest, RefusedFiles};
use protocol::id::DeviceId;
use protocol::tuf::introduction::Introduction;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::{Store, StoreError, to_sql, unsigned};

/// Why files were not taken in.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// They are not good.
    #[error(transparent)]
    Refused(#[from] RefusedFiles),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for TakeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// The newest file of each role.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn repository(&self) -> Result<Newest, StoreError> {
        self.read(|connection| Ok(newest(connection)?))
    }

    /// A file, by its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn repository_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT bytes FROM repository_files WHERE name = ?";
        self.read(|connection| {
            Ok(connection.query_row(sql, [name], |row| row.get(0)).optional()?)
        })
    }

    /// Keeps what `decide` makes of the newest files, all of it at once. Every device is told where `by`
    /// somebody changed something; that the cloud signed the same anew is no change.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn change_repository(
        &self,
        by: Option<&By>,
        now_s: i64,
        introduction: Option<&Introduction>,
        decide: impl FnOnce(&Newest) -> Result<Vec<File>, RefusedFiles>,
    ) -> Result<Vec<File>, TakeError> {
        self.change(|transaction| {
            let files = decide(&newest(transaction)?)?;
            files.iter().try_for_each(|file| insert(transaction, file, now_s))?;
            if let Some(introduction) = introduction {
                let sql = "INSERT INTO repository_introduction VALUES (1, ?)";
                transaction.execute(sql, [introduction.to_json()])?;
            }
            if let Some(by) = by {
                bump_revision(transaction)?;
                let version = |file: &File| format!("{} {}", file.role, file.version);
                let detail = files.iter().map(version).collect::<Vec<_>>().join(", ");
                append(transaction, by, "repository.take", "repository", &detail)?;
            }
            Ok(files)
        })
    }

    /// The version of the newest snapshot; 0 without a repository.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest_snapshot(&self) -> Result<u64, StoreError> {
        let sql = "SELECT ifnull(max(version), 0) AS version FROM repository_files
                   WHERE role = 'snapshot'";
        self.read(|connection| Ok(connection.query_row(sql, [], |row| unsigned(row, "version"))?))
    }

    /// An operator's word for the first root, where there is a repository.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn introduction(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT said FROM repository_introduction";
        self.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?))
    }

    /// The director's list for a device: what `decide` makes of the newest files and the last list, or
    /// that one again where it makes nothing.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn direct(
        &self,
        device: &DeviceId,
        decide: impl FnOnce(&Newest, Option<&[u8]>) -> Result<Option<(u64, Vec<u8>)>, RefusedFiles>,
    ) -> Result<Option<Vec<u8>>, TakeError> {
        self.change(|transaction| {
            let sql = "SELECT bytes FROM directed WHERE device = ?";
            let last: Option<Vec<u8>> =
                transaction.query_row(sql, [device.as_str()], |row| row.get(0)).optional()?;
            let Some((version, bytes)) = decide(&newest(transaction)?, last.as_deref())? else {
                return Ok(last);
            };
            let sql = "INSERT INTO directed (device, version, bytes) VALUES (?, ?, ?)
                       ON CONFLICT (device) DO UPDATE SET version = excluded.version,
                                                          bytes = excluded.bytes";
            transaction.execute(sql, params![device.as_str(), to_sql(version), bytes])?;
            Ok(Some(bytes))
        })
    }
}

fn newest(connection: &Connection) -> rusqlite::Result<Newest> {
    let sql = "SELECT role, bytes FROM repository_files AS one WHERE version =
                   (SELECT max(version) FROM repository_files WHERE role = one.role)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn insert(transaction: &Transaction<'_>, file: &File, now_s: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO repository_files (name, role, version, bytes, taken_at_s)
               VALUES (?, ?, ?, ?, ?)
               ON CONFLICT (name) DO UPDATE SET version = excluded.version, bytes = excluded.bytes,
                                                taken_at_s = excluded.taken_at_s";
    let values = params![file.name, file.role, to_sql(file.version), file.bytes, now_s];
    transaction.execute(sql, values)?;
    Ok(())
}
