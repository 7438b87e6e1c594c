//! What a database out of an old backup must forget.

use rusqlite::Transaction;

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::{Store, StoreError};

/// What a restored server goes on believing.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Keys of the API.
    pub keys: bool,
    /// Devices, nodes and keys that it does not.
    pub shut_out: &'a [String],
}

/// What a restored server does not believe any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Void {
    /// Enrolment tokens, of devices and nodes.
    pub tokens: u64,
    /// Keys of the API.
    pub keys: u64,
}

/// Why nothing was made void.
#[derive(Debug, thiserror::Error)]
pub enum VoidError {
    /// Nobody by that name is to be shut out.
    #[error("there is no device, node or key {0}")]
    Stranger(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for VoidError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// What SQLite finds wrong with the file; `ok` when nothing is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn quick_check(&self) -> Result<String, StoreError> {
        let sql = "PRAGMA quick_check(1)";
        self.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?))
    }

    /// Makes void what may have been used or taken back since the backup was made: every token, and every
    /// key of the API unless they are kept; and shuts out who is named.
    ///
    /// # Errors
    /// [`VoidError`]; nothing was changed then.
    pub fn void_after_restore(
        &self,
        by: &By,
        backup: &str,
        kept: &Kept<'_>,
    ) -> Result<Void, VoidError> {
        self.change(|transaction| {
            for id in kept.shut_out {
                shut_out(transaction, by, id)?;
            }
            let void = void(transaction, by, kept.keys)?;
            bump_revision(transaction)?;
            let detail = format!("{} tokens and {} keys are void", void.tokens, void.keys);
            append(transaction, by, "backup.restore", backup, &detail)?;
            Ok(void)
        })
    }
}

fn void(transaction: &Transaction<'_>, by: &By, keep_keys: bool) -> rusqlite::Result<Void> {
    let mut tokens = 0;
    for table in ["enrolment_tokens", "node_tokens"] {
        let sql = format!("UPDATE {table} SET expires_at_s = ?1 WHERE expires_at_s > ?1");
        tokens += transaction.execute(&sql, [by.now_s])? as u64;
    }
    let sql = "UPDATE api_keys SET revoked_at_s = ? WHERE revoked_at_s IS NULL";
    let keys = if keep_keys { 0 } else { transaction.execute(sql, [by.now_s])? as u64 };
    Ok(Void { tokens, keys })
}

fn shut_out(transaction: &Transaction<'_>, by: &By, id: &String) -> Result<(), VoidError> {
    let ways = [
        ("device.deny", "UPDATE devices SET denied = 1 WHERE id = ?"),
        ("node.remove", "UPDATE nodes SET removed = 1 WHERE id = ?"),
        (
            "key.revoke",
            "UPDATE api_keys SET revoked_at_s = ifnull(revoked_at_s, unixepoch()) WHERE id = ?",
        ),
    ];
    for (action, sql) in ways {
        if transaction.execute(sql, [id])? > 0 {
            return Ok(append(transaction, by, action, id, "while restoring")?);
        }
    }
    Err(VoidError::Stranger(id.clone()))
}
