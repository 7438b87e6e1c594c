//! Devices: who they are, and what they said last.

use prost::Message;
use protocol::id::{ContentHash, DeviceId, TenantName};
use protocol::wire;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::audit::{By, append};
use super::{Store, StoreError, conversion_failure, parsed};

/// What is known of a device beside its own row, and its place in roll-outs.
const OF_A_DEVICE: [&str; 6] =
    ["device_labels", "directed", "measurements", "assignments", "release_assignments", "evidence"];

/// What is checked when a device connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevice {
    /// SHA-256 of the enrolled key's SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// Whether the operator shut it out.
    pub denied: bool,
    /// Whom it belongs to.
    pub tenant: TenantName,
}

/// A device with all that is known about it.
#[derive(Debug, Clone)]
pub struct DeviceRecord {
    /// Its id.
    pub id: DeviceId,
    /// What the operator called it.
    pub label: String,
    /// Whom it belongs to.
    pub tenant: TenantName,
    /// What it calls itself.
    pub hostname: String,
    /// Its agent's version.
    pub agent_version: String,
    /// Its operating system.
    pub os: String,
    /// Its processor.
    pub arch: String,
    /// Unix seconds.
    pub enrolled_at_s: i64,
    /// Unix seconds; `None` until its first connection.
    pub last_seen_s: Option<i64>,
    /// Whether the operator shut it out.
    pub denied: bool,
    /// SHA-256 of the fleet CA behind the certificate that it showed last; empty until it connected.
    pub ca_hash: String,
    /// What it said it runs.
    pub reported: wire::ReportedState,
}

impl DeviceRecord {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let reported: Vec<u8> = row.get("reported")?;
        Ok(Self {
            id: parsed(row, "id")?,
            label: row.get("label")?,
            tenant: parsed(row, "tenant")?,
            hostname: row.get("hostname")?,
            agent_version: row.get("agent_version")?,
            os: row.get("os")?,
            arch: row.get("arch")?,
            enrolled_at_s: row.get("enrolled_at_s")?,
            last_seen_s: row.get("last_seen_s")?,
            denied: row.get("denied")?,
            ca_hash: row.get("ca_hash")?,
            reported: wire::ReportedState::decode(reported.as_slice())
                .map_err(|e| conversion_failure(Type::Blob, e))?,
        })
    }
}

impl Store {
    /// The key of a device, `None` for a device that never enrolled here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn known_device(&self, id: &DeviceId) -> Result<Option<KnownDevice>, StoreError> {
        let sql = "SELECT key_hash, denied, tenant FROM devices WHERE id = ?";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let known = statement.query_row([id.as_str()], |row| {
                Ok(KnownDevice {
                    key: parsed(row, "key_hash")?,
                    denied: row.get("denied")?,
                    tenant: parsed(row, "tenant")?,
                })
            });
            Ok(known.optional()?)
        })
    }

    /// Every device, in order of enrolment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM devices ORDER BY enrolled_at_s, id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], DeviceRecord::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Shuts a device out, or lets it in again; false for an unknown one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deny_device(&self, by: &By, id: &DeviceId, denied: bool) -> Result<bool, StoreError> {
        self.change(|transaction| {
            let sql = "UPDATE devices SET denied = ? WHERE id = ?";
            let known = transaction.execute(sql, params![denied, id.as_str()])? == 1;
            if known {
                let action = if denied { "device.deny" } else { "device.allow" };
                append(transaction, by, action, id.as_str(), "")?;
            }
            Ok(known)
        })
    }

    /// Forgets a device and all that is known of it but what is in the audit log; false for an unknown one. A place in a
    /// token that it took stays taken, and is no way back for its key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_device(&self, by: &By, id: &DeviceId) -> Result<bool, StoreError> {
        let key = "SELECT key_hash FROM devices WHERE id = ?";
        self.change(|transaction| {
            let key = transaction.query_row(key, [id.as_str()], |row| row.get::<_, String>(0));
            let Some(key) = key.optional()? else { return Ok(false) };
            let sql = "UPDATE token_uses SET key_hash = ? WHERE key_hash = ?";
            transaction
                .execute(sql, params![ContentHash::of(id.as_str().as_bytes()).to_string(), key])?;
            for table in OF_A_DEVICE {
                let sql = format!("DELETE FROM {table} WHERE device = ?");
                transaction.execute(&sql, [id.as_str()])?;
            }
            let sql = "UPDATE rollout_devices SET is_told = 0 WHERE device = ?";
            transaction.execute(sql, [id.as_str()])?;
            transaction.execute("DELETE FROM devices WHERE id = ?", [id.as_str()])?;
            append(transaction, by, "device.remove", id.as_str(), "")?;
            Ok(true)
        })
    }
}

/// What a device said when it connected, with a certificate by this fleet CA.
pub(crate) fn note_hello(
    transaction: &Transaction<'_>,
    id: &DeviceId,
    ca_hash: Option<ContentHash>,
    hello: &wire::Hello,
    now_s: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE devices SET agent_version = ?, os = ?, arch = ?, reported = ?, ca_hash = ?,
                   last_seen_s = ? WHERE id = ?";
    let reported = hello.reported.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let wire::Hello { agent_version, os, arch, .. } = hello;
    let ca = ca_hash.map(|hash| hash.to_string()).unwrap_or_default();
    let values = params![agent_version, os, arch, reported, ca, now_s, id.as_str()];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

/// What a device says it runs now.
pub(crate) fn note_reported(
    transaction: &Transaction<'_>,
    id: &DeviceId,
    reported: &wire::ReportedState,
    now_s: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE devices SET reported = ?, last_seen_s = ? WHERE id = ?";
    let values = params![reported.encode_to_vec(), now_s, id.as_str()];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

/// That a device was connected until now.
pub(crate) fn note_seen(
    transaction: &Transaction<'_>,
    id: &DeviceId,
    now_s: i64,
) -> rusqlite::Result<()> {
    let sql = "UPDATE devices SET last_seen_s = ? WHERE id = ?";
    transaction.prepare_cached(sql)?.execute(params![now_s, id.as_str()]).map(drop)
}
