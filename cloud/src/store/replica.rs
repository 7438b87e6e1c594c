//! On an inference node: the copy of what the control node knows, and usage on its way there.
//!
//! The copy is a cache in the tables of the control node, so that everything that reads them is the
//! same on both. It changes only as a whole, with its cursor, in one transaction.

use prost::Message;
use protocol::manifest::{Manifest, SignedManifest, SignerKey};
use protocol::wire;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Transaction, params};

use super::models::insert_copy;
use super::{Store, StoreError, bytes_or_empty, conversion_failure, to_sql, unsigned};

/// Lines of one batch of usage, and uses of keys in it.
const BATCH_MAX: usize = 2000;

/// How far a node knows what the control node knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replica {
    /// Whose cursor it is; empty before the first copy.
    pub epoch: bytes::Bytes,
    /// The newest change that is known.
    pub cursor: u64,
    /// When the control node was heard last, Unix seconds.
    pub contact_s: i64,
}

/// Why a copy was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A model that no signer of this fleet has signed, or that cannot be read.
    #[error("the control node names a model that is not rightly signed")]
    Model(#[from] protocol::manifest::InvalidSignature),
    /// Something else that cannot be read.
    #[error("the control node says something that cannot be read: {0}")]
    Unreadable(&'static str),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// How far this node's copy goes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn replica(&self) -> Result<Replica, StoreError> {
        self.read(|connection| {
            let sql = "SELECT epoch, cursor, contact_s FROM replica";
            Ok(connection.query_row(sql, [], |row| {
                Ok(Replica {
                    epoch: bytes_or_empty(row, "epoch")?,
                    cursor: unsigned(row, "cursor")?,
                    contact_s: row.get("contact_s")?,
                })
            })?)
        })
    }

    /// The control node was heard at this moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn note_contact(&self, now_s: i64) -> Result<(), StoreError> {
        let sql = "UPDATE replica SET contact_s = ?";
        self.change(|transaction| Ok(transaction.execute(sql, [now_s]).map(drop)?))
    }

    /// Takes over what changed: all pieces up to one that is complete.
    ///
    /// # Errors
    /// [`CopyError`]; nothing of it is kept then.
    pub fn copy(&self, pieces: &[wire::NodeUpdate], now_s: i64) -> Result<(), CopyError> {
        self.change(|transaction| {
            if pieces.iter().any(|piece| piece.fresh) {
                clear(transaction)?;
            }
            for piece in pieces {
                copy_signers(transaction, piece, now_s)?;
            }
            let trusted = signers(transaction)?;
            for piece in pieces {
                copy_people(transaction, piece, now_s)?;
                copy_models(transaction, piece, &trusted, now_s)?;
            }
            if let Some(last) = pieces.last() {
                let sql = "UPDATE replica SET epoch = ?, cursor = ?, contact_s = ?";
                transaction.execute(sql, params![&last.epoch[..], to_sql(last.cursor), now_s])?;
            }
            Ok(())
        })
    }

    /// The batch of usage that is to be sent: the one that was not taken yet, or a new one of what
    /// came since. Nothing where there is nothing to tell.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage_batch(&self, now_s: i64) -> Result<Option<wire::NodeUsage>, StoreError> {
        self.change(|transaction| {
            let sql = "SELECT body FROM usage_batch";
            let waiting: Option<Vec<u8>> =
                transaction.query_row(sql, [], |row| row.get("body")).optional()?;
            if let Some(body) = waiting {
                let batch = wire::NodeUsage::decode(&body[..]);
                return Ok(Some(batch.map_err(|e| conversion_failure(Type::Blob, e))?));
            }
            Ok(seal(transaction, now_s)?)
        })
    }

    /// The control node has taken the batch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage_taken(&self, batch: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM usage_batch WHERE batch = ?";
        self.change(|transaction| Ok(transaction.execute(sql, [to_sql(batch)]).map(drop)?))
    }
}

fn clear(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM assignments; DELETE FROM version_policies; DELETE FROM bundle_files;
         DELETE FROM bundles; DELETE FROM signers; DELETE FROM devices; DELETE FROM tenants;",
    )?;
    // When keys were used last is this node's own knowledge; a key that is not named again is dead.
    transaction.execute_batch("UPDATE api_keys SET revoked_at_s = 0;")
}

fn copy_signers(
    transaction: &Transaction<'_>,
    piece: &wire::NodeUpdate,
    now_s: i64,
) -> Result<(), CopyError> {
    let sql = "INSERT INTO signers (key_id, public_key, name, created_at_s) VALUES (?, ?, ?, ?)
               ON CONFLICT DO NOTHING";
    for signer in &piece.signers {
        let key = SignerKey::from_slice(&signer.public_key);
        let key = key.ok_or(CopyError::Unreadable("a signer's key"))?;
        let id = key.key_id().to_string();
        transaction.execute(sql, params![id, key.0.as_slice(), signer.name, now_s])?;
    }
    Ok(())
}

fn signers(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<SignerKey>> {
    let mut statement = transaction.prepare_cached("SELECT public_key FROM signers")?;
    let keys = statement.query_map([], |row| super::keys::bytes32(row, "public_key"))?;
    keys.map(|key| key.map(SignerKey)).collect()
}

fn copy_people(
    transaction: &Transaction<'_>,
    piece: &wire::NodeUpdate,
    now_s: i64,
) -> rusqlite::Result<()> {
    let tenant = "INSERT INTO tenants (name, models, created_at_s) VALUES (?, ?, ?)
                  ON CONFLICT (name) DO UPDATE SET models = excluded.models";
    for one in &piece.tenants {
        transaction.execute(tenant, params![one.name, one.models, now_s])?;
    }
    let key = "INSERT INTO api_keys (id, digest, role, name, tenant, models, expires_at_s,
                                     revoked_at_s, created_at_s, person)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, ''))
               ON CONFLICT (id) DO UPDATE SET role = excluded.role, tenant = excluded.tenant,
                   models = excluded.models, expires_at_s = excluded.expires_at_s,
                   revoked_at_s = excluded.revoked_at_s";
    for one in &piece.keys {
        let revoked_at_s = one.revoked.then_some(now_s);
        let wire::NodeKey { id, digest, role, name, tenant, models, expires_at_s, person, .. } =
            one;
        let digest = &digest[..];
        let values = params![
            id,
            digest,
            role,
            name,
            tenant,
            models,
            expires_at_s,
            revoked_at_s,
            now_s,
            person
        ];
        transaction.execute(key, values)?;
    }
    let device = "INSERT INTO devices (id, key_hash, label, hostname, agent_version, enrolled_at_s,
                                       tenant, denied) VALUES (?, ?, '', '', '', ?, ?, ?)
                  ON CONFLICT (id) DO UPDATE SET key_hash = excluded.key_hash,
                      tenant = excluded.tenant, denied = excluded.denied";
    let mut statement = transaction.prepare_cached(device)?;
    for one in &piece.devices {
        statement.execute(params![one.id, one.key_hash, now_s, one.tenant, one.denied])?;
    }
    Ok(())
}

fn copy_models(
    transaction: &Transaction<'_>,
    piece: &wire::NodeUpdate,
    trusted: &[SignerKey],
    now_s: i64,
) -> Result<(), CopyError> {
    for model in &piece.models {
        let signed = SignedManifest::from_json(&model.signed_manifest)?;
        let manifest: Manifest = signed.verify(trusted)?;
        insert_copy(transaction, &signed, &manifest, now_s)?;
    }
    let policy = "INSERT INTO version_policies (model, policy) VALUES (?, ?)
                  ON CONFLICT (model) DO UPDATE SET policy = excluded.policy";
    for one in &piece.policies {
        transaction.execute(policy, params![one.model, one.policy])?;
    }
    let assign = "INSERT INTO assignments (model, device, version, assigned_at_s)
                  VALUES (?, ?, ?, ?)
                  ON CONFLICT (model, device) DO UPDATE SET version = excluded.version";
    let remove = "DELETE FROM assignments WHERE model = ? AND device = ?";
    for one in &piece.assignments {
        if one.gone {
            transaction.execute(remove, params![one.model, one.device])?;
        } else {
            let version = to_sql(one.version);
            transaction.execute(assign, params![one.model, one.device, version, now_s])?;
        }
    }
    Ok(())
}

/// Moves what was metered since the last batch into a new one. Batches are numbered by the time, so
/// that a node whose folder was emptied does not begin again below what the control node has taken.
fn seal(transaction: &Transaction<'_>, now_s: i64) -> rusqlite::Result<Option<wire::NodeUsage>> {
    let limit = to_sql(BATCH_MAX as u64);
    let sums: Vec<wire::UsageSum> = {
        let mut statement = transaction.prepare_cached("SELECT * FROM usage LIMIT ?")?;
        let rows = statement.query_map([limit], super::usage::sum)?;
        rows.collect::<Result<_, _>>()?
    };
    let keys_used: Vec<wire::KeyUse> = {
        let sql = "SELECT id, last_used_s FROM api_keys
                   WHERE last_used_s > (SELECT keys_noted_s FROM replica)
                   ORDER BY last_used_s LIMIT ?";
        let mut statement = transaction.prepare_cached(sql)?;
        let rows = statement.query_map([limit], |row| {
            Ok(wire::KeyUse { id: row.get("id")?, at_s: row.get("last_used_s")? })
        })?;
        rows.collect::<Result<_, _>>()?
    };
    if sums.is_empty() && keys_used.is_empty() {
        return Ok(None);
    }
    let sql = "DELETE FROM usage WHERE hour_s = ? AND tenant = ? AND caller = ? AND model = ?";
    for sum in &sums {
        transaction.execute(sql, params![sum.hour_s, sum.tenant, sum.caller, sum.model])?;
    }
    if let Some(newest_s) = keys_used.iter().map(|key| key.at_s).max() {
        transaction.execute("UPDATE replica SET keys_noted_s = ?", [newest_s])?;
    }
    let batch = wire::NodeUsage { batch: next_batch(transaction, now_s)?, sums, keys_used };
    let body = batch.encode_to_vec();
    transaction
        .execute("INSERT INTO usage_batch VALUES (?, ?)", params![to_sql(batch.batch), body])?;
    Ok(Some(batch))
}

fn next_batch(transaction: &Transaction<'_>, now_s: i64) -> rusqlite::Result<u64> {
    let sql = "UPDATE replica SET last_batch = max(last_batch + 1, ?) RETURNING last_batch";
    transaction.query_row(sql, [now_s], |row| unsigned(row, "last_batch"))
}

#[cfg(test)]
mod tests;
