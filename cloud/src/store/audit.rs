//! The append-only log of changes. The database itself refuses to rewrite or shorten it.

use rusqlite::{Transaction, params};
use serde::Serialize;

use super::{Store, StoreError};

/// Who makes a change, and when.
#[derive(Debug, Clone)]
pub struct By {
    /// An operator's key, an enrolment token, or the server itself.
    pub actor: String,
    /// Unix seconds.
    pub now_s: i64,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number; grows by one.
    pub id: i64,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What, for example `model.push`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The particulars, for people.
    pub detail: String,
}

/// Appends an entry in the transaction of the change itself.
pub(super) fn append(
    transaction: &Transaction<'_>,
    by: &By,
    action: &str,
    subject: &str,
    detail: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at_s, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)";
    transaction.execute(sql, params![by.now_s, by.actor, action, subject, detail])?;
    Ok(())
}

impl Store {
    /// Notes a change that nothing else keeps.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note(&self, by: &By, action: &str, subject: &str) -> Result<(), StoreError> {
        self.note_detail(by, action, subject, "")
    }

    /// The same with particulars.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_detail(
        &self,
        by: &By,
        action: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), StoreError> {
        self.change(|transaction| Ok(append(transaction, by, action, subject, detail)?))
    }

    /// The newest entries, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        let sql = "SELECT id, strftime('%Y-%m-%dT%H:%M:%SZ', at_s, 'unixepoch') AS at,
                          actor, action, subject, detail
                   FROM audit ORDER BY id DESC LIMIT ?";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([limit], |row| {
                Ok(AuditEntry {
                    id: row.get("id")?,
                    at: row.get("at")?,
                    actor: row.get("actor")?,
                    action: row.get("action")?,
                    subject: row.get("subject")?,
                    detail: row.get("detail")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
