//! Operators' keys, and the signers that devices trust.

use fleet::access::Role;
use protocol::manifest::SignerKey;
use protocol::token::SecretDigest;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::audit::{By, append};
use super::{Store, StoreError, conversion_failure, parsed};

/// An operator's key, without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The public half of the token.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: SecretDigest,
    /// What its holder may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
}

/// A key that may sign what devices install.
#[derive(Debug, Clone, Serialize)]
pub struct Signer {
    /// SHA-256 of the public key.
    pub key_id: String,
    /// The public key, hexadecimal.
    pub public_key: String,
    /// What people call it.
    pub name: String,
    /// Unix seconds.
    pub created_at_s: i64,
}

/// A column of exactly 32 bytes.
pub(super) fn bytes32(row: &Row<'_>, column: &str) -> rusqlite::Result<[u8; 32]> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes.as_slice().try_into().map_err(|e| conversion_failure(Type::Blob, e))
}

impl Store {
    /// Whether any operator's key exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_api_keys(&self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM api_keys)";
        self.read(|connection| Ok(connection.query_row(sql, [], |row| row.get(0))?))
    }

    /// Adds an operator's key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_api_key(&self, by: &By, key: &ApiKey) -> Result<(), StoreError> {
        let sql = "INSERT INTO api_keys (id, digest, role, name, created_at_s)
                   VALUES (?, ?, ?, ?, ?)";
        self.change(|transaction| {
            let digest = key.digest.0.as_slice();
            let values = params![key.id, digest, key.role.as_str(), key.name, by.now_s];
            transaction.execute(sql, values)?;
            Ok(append(transaction, by, "key.create", &key.name, key.role.as_str())?)
        })
    }

    /// The operator's key with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn api_key(&self, id: &str) -> Result<Option<ApiKey>, StoreError> {
        let sql = "SELECT id, digest, role, name FROM api_keys WHERE id = ?";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let key = statement.query_row([id], |row| {
                Ok(ApiKey {
                    id: row.get("id")?,
                    digest: SecretDigest(bytes32(row, "digest")?),
                    role: parsed(row, "role")?,
                    name: row.get("name")?,
                })
            });
            Ok(key.optional()?)
        })
    }

    /// Trusts a signer; false when it was trusted before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_signer(&self, by: &By, key: SignerKey, name: &str) -> Result<bool, StoreError> {
        let sql = "INSERT INTO signers (key_id, public_key, name, created_at_s)
                   VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let key_id = key.key_id().to_string();
        self.change(|transaction| {
            let added =
                transaction.execute(sql, params![key_id, key.0.as_slice(), name, by.now_s])?;
            if added == 1 {
                append(transaction, by, "signer.trust", &key_id, name)?;
            }
            Ok(added == 1)
        })
    }

    /// Every trusted signer, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn signers(&self) -> Result<Vec<Signer>, StoreError> {
        let sql = "SELECT * FROM signers ORDER BY created_at_s, key_id";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Signer {
                    key_id: row.get("key_id")?,
                    public_key: hex::encode(bytes32(row, "public_key")?),
                    name: row.get("name")?,
                    created_at_s: row.get("created_at_s")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The public keys of every trusted signer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn signer_keys(&self) -> Result<Vec<SignerKey>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT public_key FROM signers")?;
            let rows = statement.query_map([], |row| Ok(SignerKey(bytes32(row, "public_key")?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
