//! The signers that devices trust.

use protocol::manifest::SignerKey;
use rusqlite::params;
use serde::Serialize;

use super::audit::{By, append};
use super::keys::bytes32;
use super::{Store, StoreError};

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

impl Store {
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
