//! The databases of telemetry. SQLite, WAL, `synchronous=FULL`: a batch is one transaction, and what a method returned for
//! is durable. A segment is known by its device and number, and taken once.

use fleet::crowd::CrowdPolicy;
use protocol::id::{ContentHash, DeviceId, TenantName};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use telemetry::segment::ENCAPSULATED_BYTES;
use telemetry::wire::Counters;

use super::crowds;
use super::intake::{Offered, Verdict};

const SCHEMAS: [&str; 2] = [include_str!("schema-1.sql"), include_str!("schema-2.sql")];
const KEYS: &str = "CREATE TABLE IF NOT EXISTS detached (
    device TEXT NOT NULL,
    segment INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    encapsulated BLOB NOT NULL,
    PRIMARY KEY (device, segment)
) STRICT, WITHOUT ROWID;";
/// Pages that are kept in memory, in KiB.
const PAGES_KIB: i64 = 2048;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const HOUR_S: i64 = 3600;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// SQLite failed.
    #[error("the telemetry database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by a newer build.
    #[error("the telemetry database has schema {found}, this program knows {} at most", SCHEMAS.len())]
    Newer {
        /// The schema's number.
        found: u32,
    },
    /// The task that asked was cut off by a shutdown.
    #[error("the telemetry database was closed")]
    Closed,
}

/// The databases.
pub struct TelemetryStore {
    segments: Mutex<Connection>,
    keys: Mutex<Connection>,
    /// What may be shown of the fleet.
    crowd: CrowdPolicy,
}

/// What the store says to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is here.
    Taken,
    /// Another one of that number is here.
    Conflict,
    /// It is wanted, from there on.
    Wanted(u64),
}

/// A segment as the admin API lists it.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Its place in the store; grows.
    pub id: i64,
    /// Whose it is.
    pub device: String,
    /// Its number on the device.
    pub segment: i64,
    /// What is in it.
    pub class: String,
    /// Whose the device was.
    pub tenant: String,
    /// For which key it is sealed; empty where it is not.
    pub key_id: String,
    /// By the device's clock.
    pub created_unix_ms: i64,
    /// By this one.
    pub received_at_s: i64,
    /// Its frames.
    pub frames: i64,
    /// Its records, as the device says.
    pub records: i64,
    /// Its bytes.
    pub size_bytes: i64,
    /// Of these.
    pub sha256: String,
}

/// A segment itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As the device has sealed it.
    pub body: Vec<u8>,
    /// The encapsulated key of a class that keeps it apart, while it exists.
    pub detached_key: Option<Vec<u8>>,
}

/// Which segments.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only behind this id.
    pub after: i64,
    /// Only of this device.
    pub device: Option<String>,
    /// Only of this class.
    pub class: Option<String>,
    /// At most so many.
    pub limit: u32,
}

impl TelemetryStore {
    /// Opens both, making them where needed.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn open(folder: &Path, crowd: CrowdPolicy) -> Result<Self, TelemetryError> {
        let mut connection = open(&folder.join("segments.db"))?;
        migrate(&mut connection)?;
        let keys = open(&folder.join("keys.db"))?;
        // What is deleted is overwritten.
        keys.pragma_update(None, "secure_delete", true)?;
        keys.execute_batch(KEYS)?;
        Ok(Self { segments: Mutex::new(connection), keys: Mutex::new(keys), crowd })
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Connection> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Connection> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of an offer is wanted, in its order.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn known(
        &self,
        device: &DeviceId,
        offers: &[Offered],
    ) -> Result<Vec<Known>, TelemetryError> {
        let connection = self.segments();
        let mut here = connection
            .prepare_cached("SELECT sha256 FROM segments WHERE device = ? AND segment = ?")?;
        let mut partial = connection.prepare_cached(
            "SELECT length(body) FROM partials WHERE device = ? AND segment = ? AND sha256 = ?",
        )?;
        let judge = |offer: &Offered| {
            let (device, segment) = (device.as_str(), sql(offer.segment));
            let hash = offer.sha256.to_string();
            let kept: Option<String> =
                here.query_row(params![device, segment], |row| row.get(0)).optional()?;
            if let Some(kept) = kept {
                return Ok(if kept == hash { Known::Taken } else { Known::Conflict });
            }
            let begun: Option<i64> =
                partial.query_row(params![device, segment, hash], |row| row.get(0)).optional()?;
            let begun = begun.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0));
            Ok(Known::Wanted(begun.min(offer.size_bytes)))
        };
        offers.iter().map(judge).collect()
    }

    /// Keeps segments, all of them or none. Which were here already is no error.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn keep(
        &self,
        device: &DeviceId,
        tenant: &TenantName,
        verdicts: &[Verdict],
        now_s: i64,
    ) -> Result<(), TelemetryError> {
        self.keep_keys(device, tenant, verdicts)?; // first: without its key a segment is worth nothing
        let mut connection = self.segments();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for verdict in verdicts {
            if insert(&transaction, tenant, verdict, now_s)? {
                for counters in &verdict.counters {
                    count(&transaction, device, tenant, counters, now_s)?;
                    let whose = (device.as_str(), tenant.as_str());
                    crowds::add(&transaction, self.crowd, whose, &counters.models, now_s)?;
                }
            }
            let delete = "DELETE FROM partials WHERE device = ? AND segment = ?";
            transaction.execute(delete, params![device.as_str(), sql(verdict.offered.segment)])?;
        }
        Ok(transaction.commit()?)
    }

    fn keep_keys(
        &self,
        device: &DeviceId,
        tenant: &TenantName,
        verdicts: &[Verdict],
    ) -> Result<(), TelemetryError> {
        let detached =
            verdicts.iter().filter_map(|v| Some((v.offered.segment, v.offered.detached_key?)));
        let detached: Vec<(u64, [u8; ENCAPSULATED_BYTES])> = detached.collect();
        if detached.is_empty() {
            return Ok(());
        }
        let mut connection = self.keys();
        let transaction = connection.transaction()?;
        for (segment, key) in detached {
            let insert = "INSERT OR IGNORE INTO detached VALUES (?, ?, ?, ?)";
            let (device, tenant) = (device.as_str(), tenant.as_str());
            transaction.execute(insert, params![device, sql(segment), tenant, key.as_slice()])?;
        }
        Ok(transaction.commit()?)
    }

    /// What has come of a segment, in front of where its stream broke off. Of one and the same the longer stays: streams
    /// need not break off in the order in which they began.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn keep_partial(
        &self,
        device: &DeviceId,
        offered: &Offered,
        body: &[u8],
        now_s: i64,
    ) -> Result<(), TelemetryError> {
        let insert = "INSERT INTO partials VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET segment = excluded.segment, sha256 = excluded.sha256,
                                       received_at_s = excluded.received_at_s, body = excluded.body
             WHERE sha256 <> excluded.sha256 OR length(body) < length(excluded.body)";
        let hash = offered.sha256.to_string();
        let values = params![device.as_str(), sql(offered.segment), hash, now_s, body];
        self.segments().execute(insert, values)?;
        Ok(())
    }

    /// What is here of a segment whose stream broke off.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn partial(
        &self,
        device: &DeviceId,
        segment: u64,
    ) -> Result<Vec<u8>, TelemetryError> {
        let select = "SELECT body FROM partials WHERE device = ? AND segment = ?";
        let values = params![device.as_str(), sql(segment)];
        let body = self.segments().query_row(select, values, |row| row.get(0)).optional()?;
        Ok(body.unwrap_or_default())
    }

    /// Segments whose bodies are here, the first to come first.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<Listed>, TelemetryError> {
        let connection = self.segments();
        let mut statement = connection.prepare_cached(
            "SELECT id, device, segment, class, tenant, key_id, created_unix_ms, received_at_s, frames,
                    records, size_bytes, sha256
             FROM segments WHERE id > ?1 AND body IS NOT NULL
               AND (?2 IS NULL OR device = ?2) AND (?3 IS NULL OR class = ?3)
             ORDER BY id LIMIT ?4",
        )?;
        let Filter { after, device, class, limit } = filter;
        let rows = statement.query_map(params![after, device, class, limit], listed)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// One segment; nothing where its body is not here.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn fetch(&self, id: i64) -> Result<Option<Stored>, TelemetryError> {
        let select = "SELECT device, segment, body FROM segments WHERE id = ? AND body IS NOT NULL";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(String, i64, Vec<u8>)> =
            self.segments().query_row(select, [id], read).optional()?;
        let Some((device, segment, body)) = found else { return Ok(None) };
        let select = "SELECT encapsulated FROM detached WHERE device = ? AND segment = ?";
        let read = |row: &Row<'_>| row.get(0);
        let detached_key =
            self.keys().query_row(select, params![device, segment], read).optional()?;
        Ok(Some(Stored { body, detached_key }))
    }

    /// Deletes what is here of a device, or of a tenant: the keys of samples first. How many segments that were.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn delete(&self, whose: Whose, name: &str) -> Result<usize, TelemetryError> {
        let column = match whose {
            Whose::Device => "device",
            Whose::Tenant => "tenant",
        };
        self.shred(&format!("DELETE FROM detached WHERE {column} = ?"), name)?;
        let mut connection = self.segments();
        let transaction = connection.transaction()?;
        let void =
            format!("UPDATE segments SET body = NULL WHERE {column} = ? AND body IS NOT NULL");
        let deleted = transaction.execute(&void, [name])?;
        for table in ["counters", "dropped"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE {column} = ?"), [name])?;
        }
        crowds::forget(&transaction, whose, name)?;
        if matches!(whose, Whose::Device) {
            transaction.execute("DELETE FROM partials WHERE device = ?", [name])?;
        }
        transaction.commit()?;
        Ok(deleted)
    }

    /// Destroys keys, also where the log of changes still has them.
    fn shred(&self, sql: &str, name: &str) -> Result<(), TelemetryError> {
        let keys = self.keys();
        if keys.execute(sql, [name])? > 0 {
            empty_log(&keys)?;
        }
        Ok(())
    }

    /// Bytes that the database takes, without the pages that it has free.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn size_bytes(&self) -> Result<u64, TelemetryError> {
        let connection = self.segments();
        let pragma =
            |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
    }
}

/// Whose telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A device's.
    Device,
    /// That of all devices of a tenant.
    Tenant,
}

fn open(path: &Path) -> Result<Connection, TelemetryError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -PAGES_KIB)?;
    Ok(connection)
}

/// Nothing that was deleted is in the log of changes any more.
pub(super) fn empty_log(keys: &Connection) -> rusqlite::Result<()> {
    keys.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn migrate(connection: &mut Connection) -> Result<(), TelemetryError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = SCHEMAS.get(found as usize..).ok_or(TelemetryError::Newer { found })?;
    for sql in missing {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(SCHEMAS.len()).unwrap_or(0))?;
    Ok(transaction.commit()?)
}

fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    Ok(Listed {
        id: row.get(0)?,
        device: row.get(1)?,
        segment: row.get(2)?,
        class: row.get(3)?,
        tenant: row.get(4)?,
        key_id: row.get(5)?,
        created_unix_ms: row.get(6)?,
        received_at_s: row.get(7)?,
        frames: row.get(8)?,
        records: row.get(9)?,
        size_bytes: row.get(10)?,
        sha256: row.get(11)?,
    })
}

/// Whether it was not here.
fn insert(
    transaction: &Transaction<'_>,
    tenant: &TenantName,
    verdict: &Verdict,
    now_s: i64,
) -> rusqlite::Result<bool> {
    let header = &verdict.segment.header;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO segments (device, segment, class, tenant, key_id, created_unix_ms, received_at_s, frames,
                               records, size_bytes, sha256, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        header.device.as_str(),
        sql(header.segment),
        header.class.as_str(),
        tenant.as_str(),
        header.key_id.as_ref().map(ContentHash::to_string).unwrap_or_default(),
        sql(header.created_unix_ms),
        now_s,
        sql(verdict.segment.frames.len() as u64),
        sql(verdict.segment.records()),
        sql(verdict.offered.size_bytes),
        verdict.offered.sha256.to_string(),
        verdict.bytes,
    ])?;
    Ok(inserted == 1)
}

/// Adds what a device has counted to the sums, in the hour in which it came: its own clock may be wrong.
fn count(
    transaction: &Transaction<'_>,
    device: &DeviceId,
    tenant: &TenantName,
    counters: &Counters,
    now_s: i64,
) -> rusqlite::Result<()> {
    let hour_s = now_s.div_euclid(HOUR_S) * HOUR_S;
    let mut add = transaction.prepare_cached(
        "INSERT INTO counters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
                                   failures = failures + excluded.failures",
    )?;
    for row in &counters.models {
        add.execute(params![
            hour_s,
            device.as_str(),
            tenant.as_str(),
            row.model,
            sql(row.version),
            row.placement,
            row.reason,
            sql(row.requests),
            sql(row.failures),
        ])?;
    }
    let mut total = transaction.prepare_cached(
        "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET records = max(records, excluded.records), bytes = max(bytes, excluded.bytes)",
    )?;
    for row in &counters.dropped {
        total.execute(params![
            device.as_str(),
            tenant.as_str(),
            row.class().as_str(),
            row.reason,
            sql(row.records),
            sql(row.bytes),
        ])?;
    }
    Ok(())
}
