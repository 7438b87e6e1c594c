//! Keys of operators and clients: only the SHA-256 of each secret is kept.

use fleet::access::KeyRecord;
use protocol::token::SecretDigest;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction, params};

use super::audit::{By, append};
use super::{Store, StoreError, conversion_failure, parse_text, parsed};

/// Keys that are neither revoked nor expired.
pub const KEYS_MAX: u32 = 10_000;

/// A key with its history.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// What decides about its holder.
    pub record: KeyRecord,
    /// Unix seconds.
    pub created_at_s: i64,
    /// Unix seconds; `None` unless revoked.
    pub revoked_at_s: Option<i64>,
    /// Unix seconds, to about a minute; `None` until its first use.
    pub last_used_s: Option<i64>,
}

/// What became of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The key is worthless from now on.
    Now,
    /// There is no such key, or it was revoked before.
    Absent,
    /// It is the last key of an admin.
    LastAdmin,
}

impl StoredKey {
    /// Whether it can be used now.
    pub fn is_live(&self, now_s: i64) -> bool {
        self.revoked_at_s.is_none() && self.record.expires_at_s.is_none_or(|end_s| now_s < end_s)
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let person: Option<String> = row.get("person")?;
        let record = KeyRecord {
            id: row.get("id")?,
            digest: SecretDigest(bytes32(row, "digest")?),
            role: parsed(row, "role")?,
            name: row.get("name")?,
            tenant: parsed(row, "tenant")?,
            models: parsed(row, "models")?,
            expires_at_s: row.get("expires_at_s")?,
            person: person.as_deref().map(parse_text).transpose()?,
        };
        Ok(Self {
            record,
            created_at_s: row.get("created_at_s")?,
            revoked_at_s: row.get("revoked_at_s")?,
            last_used_s: row.get("last_used_s")?,
        })
    }
}

/// Adds a key unless there are [`KEYS_MAX`] live ones; whether it did.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    key: &KeyRecord,
    now_s: i64,
) -> rusqlite::Result<bool> {
    let count = "SELECT count(*) FROM api_keys WHERE revoked_at_s IS NULL
                 AND (expires_at_s IS NULL OR expires_at_s > ?)";
    let live: u32 = transaction.query_row(count, [now_s], |row| row.get(0))?;
    if live >= KEYS_MAX {
        return Ok(false);
    }
    let sql = "INSERT INTO api_keys (id, digest, role, name, tenant, models, expires_at_s,
                                     created_at_s, person) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![
        key.id,
        key.digest.0.as_slice(),
        key.role.as_str(),
        key.name,
        key.tenant.as_str(),
        key.models.to_string(),
        key.expires_at_s,
        now_s,
        key.person.as_ref().map(ToString::to_string)
    ];
    transaction.execute(sql, values)?;
    Ok(true)
}

/// A column of exactly 32 bytes.
pub(super) fn bytes32(row: &Row<'_>, column: &str) -> rusqlite::Result<[u8; 32]> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes.as_slice().try_into().map_err(|e| conversion_failure(Type::Blob, e))
}

impl Store {
    /// Whether any key exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_api_keys(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM api_keys)";
        self.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?))
    }

    /// Adds a key; false when there are [`KEYS_MAX`] live ones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_api_key(&self, by: &By, key: &KeyRecord) -> Result<bool, StoreError> {
        self.change(|transaction| {
            if !insert(transaction, key, by.now_s)? {
                return Ok(false);
            }
            let detail = format!("{} of {} for {}", key.role, key.tenant, key.models);
            append(transaction, by, "key.create", &key.title(), &detail)?;
            Ok(true)
        })
    }

    /// Revokes a key for good. The last admin's stays: without it nobody could make another. Keys of sign-ins do
    /// not count for that, since they end by themselves and a provider may be away.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke_api_key(&self, by: &By, id: &str) -> Result<Revoked, StoreError> {
        let others = "SELECT count(*) FROM api_keys WHERE id <> ? AND role = 'admin'
                      AND revoked_at_s IS NULL AND person IS NULL
                      AND (expires_at_s IS NULL OR expires_at_s > ?)";
        let is_admin = "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ? AND role = 'admin'
                                       AND revoked_at_s IS NULL AND person IS NULL)";
        let sql = "UPDATE api_keys SET revoked_at_s = ? WHERE id = ? AND revoked_at_s IS NULL";
        self.change(|transaction| {
            let others: u32 = transaction.query_row(others, params![id, by.now_s], |r| r.get(0))?;
            if others == 0 && transaction.query_row(is_admin, [id], |r| r.get(0))? {
                return Ok(Revoked::LastAdmin);
            }
            if transaction.execute(sql, params![by.now_s, id])? == 0 {
                return Ok(Revoked::Absent);
            }
            append(transaction, by, "key.revoke", id, "")?;
            Ok(Revoked::Now)
        })
    }

    /// Every key, oldest first, the revoked ones too.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn api_keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM api_keys ORDER BY created_at_s, id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], StoredKey::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
