//! Statements of the analytics key: kept and passed on, word for word. Devices judge them.

use protocol::analytics::{SignedStatement, Statement};
use rusqlite::{Connection, OptionalExtension, params};

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::{Store, StoreError, to_sql};

/// Why a statement was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// A newer one, or another one of that number, is here.
    #[error("statement {seen} of the analytics key is here already")]
    Older {
        /// The newest.
        seen: u64,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AnalyticsError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Takes a statement that was verified, if it is newer than all others.
    ///
    /// # Errors
    /// [`AnalyticsError`].
    pub fn put_analytics_key(
        &self,
        by: &By,
        signed: &SignedStatement,
        said: &Statement,
    ) -> Result<(), AnalyticsError> {
        self.change(|transaction| {
            let newest = "SELECT max(serial) FROM analytics_keys";
            let newest: Option<i64> = transaction.query_row(newest, [], |row| row.get(0))?;
            let seen = newest.map_or(0, |serial| u64::try_from(serial).unwrap_or(0));
            if said.serial <= seen {
                return Err(AnalyticsError::Older { seen });
            }
            let sql = "INSERT INTO analytics_keys VALUES (?, ?, ?)";
            transaction.execute(sql, params![to_sql(said.serial), signed.to_json(), by.now_s])?;
            bump_revision(transaction)?;
            append(transaction, by, "telemetry.key", &said.serial.to_string(), &said.public_key)?;
            Ok(())
        })
    }

    /// The newest statement, as it came.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn analytics_key(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|connection| Ok(newest(connection)?))
    }
}

/// The newest statement.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT statement FROM analytics_keys ORDER BY serial DESC LIMIT 1";
    connection.query_row(sql, [], |row| row.get(0)).optional()
}
