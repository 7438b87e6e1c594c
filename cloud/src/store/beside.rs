//! The database of a server that may be running, for the commands that work beside it: nothing is migrated,
//! and nothing is held for longer than one statement.

use protocol::id::ContentHash;
use rusqlite::{Connection, params};
use std::path::Path;

use super::audit::By;
use super::{BUSY_TIMEOUT, SCHEMA, StoreError, parsed, unsigned};

/// The database.
pub struct Beside(Connection);

/// What a copy of it holds.
#[derive(Debug)]
pub struct Snapshot {
    /// How many devices.
    pub devices: u64,
    /// The files of every pushed bundle, and of every release of the agent.
    pub blobs: Vec<ContentHash>,
}

impl Beside {
    /// Opens it, if it is there and has the schema of this program.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match found {
            SCHEMA => Ok(Self(connection)),
            newer if newer > SCHEMA => Err(StoreError::Newer { found }),
            _ => Err(StoreError::Older { found }), // a running server must not lose its tables
        }
    }

    /// Notes in the audit log what was done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note(&self, by: &By, action: &str, subject: &str) -> Result<(), StoreError> {
        let sql =
            "INSERT INTO audit (at_s, actor, action, subject, detail) VALUES (?, ?, ?, ?, '')";
        Ok(self.0.execute(sql, params![by.now_s, by.actor, action, subject]).map(drop)?)
    }

    /// Copies it into a new file, as it is at one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn copy_to(&self, to: &Path) -> Result<Snapshot, StoreError> {
        self.0.execute("VACUUM INTO ?", [to.to_string_lossy()])?;
        let copy = Connection::open(to)?;
        let sql = "SELECT count(*) AS n FROM devices";
        let devices = copy.query_row(sql, [], |row| unsigned(row, "n"))?;
        let mut statement =
            copy.prepare("SELECT sha256 FROM bundle_files UNION SELECT sha256 FROM releases")?;
        let blobs = statement.query_map([], |row| parsed(row, "sha256"))?;
        Ok(Snapshot { devices, blobs: blobs.collect::<Result<_, _>>()? })
    }

    /// Devices and nodes that have not shown a certificate of this fleet CA yet; those that were shut out
    /// do not count.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn without_certificate_of(&self, ca_hash: ContentHash) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT id FROM devices WHERE denied = 0 AND ca_hash <> ?1
                   UNION ALL SELECT id FROM nodes WHERE removed = 0 AND ca_hash <> ?1";
        let mut statement = self.0.prepare(sql)?;
        let ids = statement.query_map([ca_hash.to_string()], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Tokens that were made before this moment and still let somebody in.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tokens_from_before(&self, then_s: i64, now_s: i64) -> Result<u64, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM enrolment_tokens
                           WHERE created_at_s < ?1 AND expires_at_s > ?2 AND revoked_at_s IS NULL
                           AND uses_max > (SELECT count(*) FROM token_uses WHERE token = id))
                        + (SELECT count(*) FROM node_tokens WHERE created_at_s < ?1
                           AND expires_at_s > ?2 AND used_by_key IS NULL) AS n";
        Ok(self.0.query_row(sql, params![then_s, now_s], |row| unsigned(row, "n"))?)
    }
}
