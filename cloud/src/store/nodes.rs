//! Inference nodes: the tokens that let them in, who they are, and where agents reach them.

use fleet::enrol::{self, Grant, TokenRecord};
use protocol::id::{ContentHash, NodeId};
use protocol::limits::NODES_MAX;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;
use protocol::wire;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::keys::bytes32;
use super::tokens::EnrolError;
use super::{Store, StoreError, parsed, to_sql, unsigned};

/// A token that is about to be handed out.
#[derive(Debug, Clone)]
pub struct NewNodeToken {
    /// Finds the record.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: SecretDigest,
    /// What the node will be called.
    pub label: String,
    /// Host names and addresses that its certificate will bear.
    pub names: Vec<String>,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
}

/// A node that asks to join, with its signing request already verified.
#[derive(Debug, Clone)]
pub struct NodeApplicant {
    /// The token's id.
    pub token_id: String,
    /// SHA-256 of the presented secret.
    pub presented: SecretDigest,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// What its machine calls itself.
    pub hostname: String,
    /// Its program's version.
    pub version: String,
    /// The id it gets if it is new.
    pub fresh_id: NodeId,
    /// Unix seconds.
    pub now_s: i64,
}

/// A node with all that is remembered of it.
#[derive(Debug, Clone)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// What the operator called it.
    pub label: String,
    /// What its machine calls itself.
    pub hostname: String,
    /// Host names and addresses that its certificate bears.
    pub names: Vec<String>,
    /// Its program's version.
    pub version: String,
    /// Where agents reach it, `HOST:PORT`; empty until it was connected.
    pub address: String,
    /// Unix seconds.
    pub joined_at_s: i64,
    /// Unix seconds; `None` until its first connection.
    pub last_seen_s: Option<i64>,
    /// Whether it was shut out.
    pub removed: bool,
}

impl NodeRecord {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let names: String = row.get("names")?;
        Ok(Self {
            id: parsed(row, "id")?,
            key: parsed(row, "key_hash")?,
            label: row.get("label")?,
            hostname: row.get("hostname")?,
            names: names.split_whitespace().map(str::to_owned).collect(),
            version: row.get("version")?,
            address: row.get("address")?,
            joined_at_s: row.get("joined_at_s")?,
            last_seen_s: row.get("last_seen_s")?,
            removed: row.get("removed")?,
        })
    }
}

impl Store {
    /// Keeps a fresh token for a node.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_node_token(&self, by: &By, token: &NewNodeToken) -> Result<(), StoreError> {
        let sql = "INSERT INTO node_tokens (id, digest, label, names, created_at_s, expires_at_s)
                   VALUES (?, ?, ?, ?, ?, ?)";
        let names = token.names.join(" ");
        self.change(|transaction| {
            let digest = token.digest.0.as_slice();
            let values =
                params![token.id, digest, token.label, names, by.now_s, token.expires_at_s];
            transaction.execute(sql, values)?;
            let life_s = token.expires_at_s - by.now_s;
            let detail = format!("{:?} ({names}) for {life_s} s", token.label);
            Ok(append(transaction, by, "node.token", &token.id, &detail)?)
        })
    }

    /// Decides about a node that asks to join, and carries the decision out, in one transaction.
    ///
    /// # Errors
    /// [`EnrolError::Refused`] with what the node is told.
    pub fn join(&self, applicant: &NodeApplicant) -> Result<NodeRecord, EnrolError> {
        self.change(|transaction| {
            let found = find_token(transaction, applicant)?;
            let record = found.as_ref().map(|(record, ..)| record);
            let grant = enrol::decide(record, &applicant.presented, applicant.now_s);
            let grant = grant.map_err(EnrolError::Refused)?;
            let (_, label, names) = found.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            carry_out(transaction, applicant, grant, &label, &names)
        })
    }

    /// The node with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn node(&self, id: &NodeId) -> Result<Option<NodeRecord>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM nodes WHERE id = ?")?;
            Ok(statement.query_row([id.as_str()], NodeRecord::from_row).optional()?)
        })
    }

    /// Every node, the removed ones too, in the order in which they joined.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM nodes ORDER BY joined_at_s, id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], NodeRecord::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A node is connected, and says where agents reach it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn node_hello(
        &self,
        id: &NodeId,
        version: &str,
        address: &str,
        now_s: i64,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET version = ?, address = ?, last_seen_s = ? WHERE id = ?";
        self.change(|transaction| {
            let old: Option<String> = transaction
                .query_row("SELECT address FROM nodes WHERE id = ?", [id.as_str()], |r| r.get(0))
                .optional()?;
            transaction.execute(sql, params![version, address, now_s, id.as_str()])?;
            if old.is_some_and(|old| old != address) {
                bump_revision(transaction)?; // devices hear of it
            }
            Ok(())
        })
    }

    /// That a node has a certificate of this fleet CA.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn node_certified(&self, id: &NodeId, ca_hash: ContentHash) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET ca_hash = ? WHERE id = ?";
        let values = params![ca_hash.to_string(), id.as_str()];
        self.change(|transaction| Ok(transaction.execute(sql, values).map(drop)?))
    }

    /// That a node was connected until now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn node_seen(&self, id: &NodeId, now_s: i64) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET last_seen_s = ? WHERE id = ?";
        self.change(|transaction| {
            Ok(transaction.execute(sql, params![now_s, id.as_str()]).map(drop)?)
        })
    }

    /// Shuts a node out for good; false for an unknown or removed one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_node(&self, by: &By, id: &NodeId) -> Result<bool, StoreError> {
        self.change(|transaction| {
            let sql = "UPDATE nodes SET removed = 1 WHERE id = ? AND removed = 0";
            let known = transaction.execute(sql, [id.as_str()])? == 1;
            if known {
                bump_revision(transaction)?;
                append(transaction, by, "node.remove", id.as_str(), "")?;
            }
            Ok(known)
        })
    }
}

/// Where deferrals can be asked.
pub(super) fn endpoints(connection: &Connection) -> rusqlite::Result<Vec<wire::InferenceNode>> {
    let sql =
        "SELECT id, address FROM nodes WHERE removed = 0 AND address <> '' ORDER BY id LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([to_sql(NODES_MAX as u64)], |row| {
        Ok(wire::InferenceNode { id: row.get("id")?, address: row.get("address")? })
    })?;
    rows.collect()
}

/// A token's record, the label, and the names.
type FoundToken = (TokenRecord, String, String);

fn find_token(
    transaction: &Transaction<'_>,
    applicant: &NodeApplicant,
) -> rusqlite::Result<Option<FoundToken>> {
    let sql =
        "SELECT digest, label, names, expires_at_s, used_by_key FROM node_tokens WHERE id = ?";
    let found = transaction.query_row(sql, [&applicant.token_id], |row| {
        let used_by: Option<String> = row.get("used_by_key")?;
        let record = TokenRecord {
            secret: SecretDigest(bytes32(row, "digest")?),
            expires_at_s: row.get("expires_at_s")?,
            is_revoked: false,
            uses_max: 1, // a node's certificate bears names that no two nodes may
            uses: u32::from(used_by.is_some()),
            knows_key: used_by == Some(applicant.key.to_string()),
        };
        Ok((record, row.get("label")?, row.get("names")?))
    });
    found.optional()
}

fn carry_out(
    transaction: &Transaction<'_>,
    applicant: &NodeApplicant,
    grant: Grant,
    label: &str,
    names: &str,
) -> Result<NodeRecord, EnrolError> {
    let key = applicant.key.to_string();
    if grant != Grant::SameDevice {
        let sql = "UPDATE node_tokens SET used_by_key = ? WHERE id = ?";
        transaction.execute(sql, params![key, applicant.token_id])?;
    }
    let find = "SELECT * FROM nodes WHERE key_hash = ?";
    if let Some(known) = transaction.query_row(find, [&key], NodeRecord::from_row).optional()? {
        return if known.removed { Err(refused("this node was removed")) } else { Ok(known) };
    }
    let count = "SELECT count(*) AS count FROM nodes WHERE removed = 0";
    if transaction.query_row(count, [], |row| unsigned(row, "count"))? >= NODES_MAX as u64 {
        return Err(refused(&format!("there are {NODES_MAX} nodes, which is the most")));
    }
    let sql = "INSERT INTO nodes (id, key_hash, label, hostname, names, version, joined_at_s)
               VALUES (?, ?, ?, ?, ?, ?, ?)";
    let (id, hostname) = (applicant.fresh_id.as_str(), &applicant.hostname);
    let values = params![id, key, label, hostname, names, applicant.version, applicant.now_s];
    transaction.execute(sql, values)?;
    let by = By { actor: format!("token {}", applicant.token_id), now_s: applicant.now_s };
    append(transaction, &by, "node.join", id, hostname)?;
    Ok(transaction.query_row(find, [&key], NodeRecord::from_row)?)
}

fn refused(text: &str) -> EnrolError {
    EnrolError::Refused(
        Problem::new(ProblemCode::Unauthorised, text)
            .hint("see what there is: outrigger node list"),
    )
}
