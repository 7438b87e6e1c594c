//! What changed since when, for inference nodes.
//!
//! Triggers note every change of what nodes must know, whoever makes it, under a number that grows;
//! of several changes to one thing only the last counts. They and their notes are temporary: they
//! belong to this process, under an epoch of its own, so a database that was restored from a backup
//! is simply read anew. What a roll-out has told a device is to nodes as if it were assigned: a canary defers to them before
//! anything is. Of all this only devices and the keys of sign-ins are ever removed. Nodes hear of a device as of a denial:
//! under a key that nobody has, so that the removed one may enrol again; a key has ended by itself.

use prost::Message;
use protocol::id::{ContentHash, TenantName, Version};
use protocol::wire;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError, bytes_or_empty, to_sql, unsigned};

/// Changes are told in pieces of about this size.
const PIECE_BYTES: usize = 512 << 10;

/// Whose changes are noted: the kind, its table, what tells one from another, and the columns that
/// matter, none for every change.
const FOLLOWED: [(&str, &str, &str, &str); 7] = [
    ("signer", "signers", "key_id", ""),
    ("tenant", "tenants", "name", ""),
    ("key", "api_keys", "id", "OF revoked_at_s, expires_at_s, models, role, tenant"),
    ("device", "devices", "id", "OF key_hash, tenant, denied"),
    ("model", "bundles", "bundle", ""),
    ("policy", "version_policies", "model", ""),
    ("assignment", "assignments", "model || ' ' || ?.device", ""),
];

/// Begins to note changes, with everything that is there as the first.
pub(super) fn follow(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.execute_batch(
        "CREATE TEMP TABLE feed (
             kind TEXT NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (kind, id)
         ) STRICT, WITHOUT ROWID;
         CREATE UNIQUE INDEX temp.feed_by_number ON feed (number);",
    )?;
    for (kind, table, id, columns) in FOLLOWED {
        let of = |row: &str| match id.split_once('?') {
            Some((first, second)) => format!("{row}.{first}{row}{second}"),
            None => format!("{row}.{id}"),
        };
        let note = note(kind, &of("NEW"));
        let there = of(table);
        connection.execute_batch(&format!(
            "INSERT INTO temp.feed SELECT '{kind}', {there},
                 (SELECT ifnull(max(number), 0) FROM temp.feed)
                 + row_number() OVER (ORDER BY {there}) FROM {table};
             CREATE TEMP TRIGGER feed_{table}_new AFTER INSERT ON main.{table} BEGIN {note} END;
             CREATE TEMP TRIGGER feed_{table}_changed AFTER UPDATE {columns} ON main.{table}
             BEGIN {note} END;"
        ))?;
    }
    follow_told(connection)?;
    for (kind, table, id) in [
        ("device", "devices", "OLD.id"),
        ("assignment", "assignments", "OLD.model || ' ' || OLD.device"),
    ] {
        let note = note(kind, id);
        connection.execute_batch(&format!(
            "CREATE TEMP TRIGGER feed_{table}_removed AFTER DELETE ON main.{table} BEGIN {note} END;"
        ))?;
    }
    Ok(())
}

/// Notes what roll-outs tell devices, as assignments. What devices count changes their rows all the time, and is no news.
fn follow_told(connection: &Connection) -> rusqlite::Result<()> {
    let note = note("assignment", "NEW.model || ' ' || NEW.device");
    connection.execute_batch(&format!(
        "INSERT INTO temp.feed SELECT 'assignment', id,
             (SELECT ifnull(max(number), 0) FROM temp.feed) + row_number() OVER (ORDER BY id)
             FROM (SELECT DISTINCT model || ' ' || device AS id FROM rollout_devices WHERE is_told = 1)
             WHERE id NOT IN (SELECT id FROM temp.feed WHERE kind = 'assignment');
         CREATE TEMP TRIGGER feed_told_new AFTER INSERT ON main.rollout_devices
         WHEN NEW.is_told = 1 BEGIN {note} END;
         CREATE TEMP TRIGGER feed_told_changed AFTER UPDATE OF is_told ON main.rollout_devices
         WHEN NEW.is_told <> OLD.is_told BEGIN {note} END;"
    ))
}

/// Notes a change of the thing that `id` says.
fn note(kind: &str, id: &str) -> String {
    format!(
        "INSERT INTO feed VALUES ('{kind}', {id}, (SELECT ifnull(max(number), 0) + 1 FROM feed))
         ON CONFLICT (kind, id) DO UPDATE SET number = excluded.number;"
    )
}

/// The number of the newest change.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement =
        connection.prepare_cached("SELECT ifnull(max(number), 0) FROM temp.feed")?;
    statement
        .query_row([], |row| row.get::<_, i64>(0))
        .map(|number| u64::try_from(number).unwrap_or(0))
}

impl Store {
    /// A piece of what changed after `cursor`; its own cursor says how far it goes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn changes(&self, cursor: u64) -> Result<wire::NodeUpdate, StoreError> {
        self.read(|connection| {
            let sql = "SELECT kind, id, number FROM temp.feed WHERE number > ? ORDER BY number";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([to_sql(cursor)])?;
            let mut piece = wire::NodeUpdate { cursor, complete: true, ..Default::default() };
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                if bytes >= PIECE_BYTES {
                    piece.complete = false;
                    break;
                }
                let (kind, id): (String, String) = (row.get("kind")?, row.get("id")?);
                bytes += add(connection, &mut piece, &kind, &id)?;
                piece.cursor = unsigned(row, "number")?;
            }
            Ok(piece)
        })
    }
}

/// Adds what a note is about; how many bytes that takes.
fn add(
    connection: &Connection,
    piece: &mut wire::NodeUpdate,
    kind: &str,
    id: &str,
) -> rusqlite::Result<usize> {
    let one = |sql: &str| -> rusqlite::Result<_> { connection.prepare_cached(sql) };
    Ok(match kind {
        "signer" => {
            let sql = "SELECT public_key, name FROM signers WHERE key_id = ?";
            push(&mut piece.signers, one(sql)?.query_row([id], signer)?)
        }
        "tenant" => {
            let sql = "SELECT name, models FROM tenants WHERE name = ?";
            push(&mut piece.tenants, one(sql)?.query_row([id], tenant)?)
        }
        "key" => {
            let sql = "SELECT * FROM api_keys WHERE id = ?";
            let found = one(sql)?.query_row([id], key).optional()?;
            found.map_or(0, |key| push(&mut piece.keys, key))
        }
        "device" => {
            let sql = "SELECT id, key_hash, tenant, denied FROM devices WHERE id = ?";
            let found = one(sql)?.query_row([id], device).optional()?;
            push(&mut piece.devices, found.unwrap_or_else(|| removed(id)))
        }
        "model" => {
            let sql = "SELECT signed_manifest, variant FROM bundles WHERE bundle = ?";
            let found = one(sql)?.query_row([id], model)?;
            found.map_or(0, |model| push(&mut piece.models, model))
        }
        "policy" => {
            let sql = "SELECT model, policy FROM version_policies WHERE model = ?";
            push(&mut piece.policies, one(sql)?.query_row([id], policy)?)
        }
        _ => {
            let (name, device) = id.split_once(' ').unwrap_or((id, ""));
            let sql = "SELECT version, 0 AS rank FROM rollout_devices
                           WHERE model = ?1 AND device = ?2 AND is_told = 1
                       UNION ALL SELECT version, 1 FROM assignments WHERE model = ?1 AND device = ?2
                       ORDER BY rank LIMIT 1";
            let version =
                one(sql)?.query_row(params![name, device], |row| unsigned(row, "version"));
            push(&mut piece.assignments, assignment(name, device, version.optional()?))
        }
    })
}

fn push<M: Message>(list: &mut Vec<M>, message: M) -> usize {
    let bytes = message.encoded_len() + 8; // its tag and length
    list.push(message);
    bytes
}

fn signer(row: &Row<'_>) -> rusqlite::Result<wire::NodeSigner> {
    Ok(wire::NodeSigner { public_key: bytes_or_empty(row, "public_key")?, name: row.get("name")? })
}

fn tenant(row: &Row<'_>) -> rusqlite::Result<wire::NodeTenant> {
    Ok(wire::NodeTenant { name: row.get("name")?, models: row.get("models")? })
}

fn key(row: &Row<'_>) -> rusqlite::Result<wire::NodeKey> {
    Ok(wire::NodeKey {
        id: row.get("id")?,
        digest: bytes_or_empty(row, "digest")?,
        role: row.get("role")?,
        name: row.get("name")?,
        tenant: row.get("tenant")?,
        models: row.get("models")?,
        expires_at_s: row.get("expires_at_s")?,
        revoked: row.get::<_, Option<i64>>("revoked_at_s")?.is_some(),
        person: row.get::<_, Option<String>>("person")?.unwrap_or_default(),
    })
}

fn device(row: &Row<'_>) -> rusqlite::Result<wire::NodeDevice> {
    Ok(wire::NodeDevice {
        id: row.get("id")?,
        key_hash: row.get("key_hash")?,
        tenant: row.get("tenant")?,
        denied: row.get("denied")?,
    })
}

fn removed(id: &str) -> wire::NodeDevice {
    wire::NodeDevice {
        id: id.to_owned(),
        key_hash: ContentHash::of(id.as_bytes()).to_string(),
        tenant: TenantName::default().to_string(),
        denied: true,
    }
}

/// Nodes need no edge variants.
fn model(row: &Row<'_>) -> rusqlite::Result<Option<wire::NodeModel>> {
    let is_cloud = row.get::<_, String>("variant")? == protocol::id::Variant::Cloud.as_str();
    let signed_manifest = bytes_or_empty(row, "signed_manifest")?;
    Ok(is_cloud.then_some(wire::NodeModel { signed_manifest }))
}

fn policy(row: &Row<'_>) -> rusqlite::Result<wire::NodePolicy> {
    Ok(wire::NodePolicy { model: row.get("model")?, policy: row.get("policy")? })
}

fn assignment(model: &str, device: &str, version: Option<u64>) -> wire::NodeAssignment {
    wire::NodeAssignment {
        model: model.to_owned(),
        device: device.to_owned(),
        version: version.unwrap_or(Version::FIRST.get()),
        gone: version.is_none(),
    }
}
