//! Which versions of a model answer side by side.

use protocol::id::ModelName;
use protocol::versions::VersionPolicy;
use rusqlite::params;

use super::audit::{By, append};
use super::{Store, StoreError, parsed};

impl Store {
    /// Says which versions of a model answer; false for a model without a cloud variant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_policy(
        &self,
        by: &By,
        model: &ModelName,
        policy: &VersionPolicy,
    ) -> Result<bool, StoreError> {
        let known = "SELECT EXISTS (SELECT 1 FROM bundles WHERE model = ? AND variant = 'cloud')";
        let sql = "INSERT INTO version_policies (model, policy) VALUES (?, ?)
                   ON CONFLICT (model) DO UPDATE SET policy = excluded.policy";
        self.change(|transaction| {
            if !transaction.query_row(known, [model.as_str()], |row| row.get(0))? {
                return Ok(false);
            }
            transaction.execute(sql, params![model.as_str(), policy.to_string()])?;
            append(transaction, by, "model.policy", model.as_str(), &policy.to_string())?;
            Ok(true)
        })
    }

    /// Every policy that was set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn policies(&self) -> Result<Vec<(ModelName, VersionPolicy)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM version_policies")?;
            let rows = statement
                .query_map([], |row| Ok((parsed(row, "model")?, parsed(row, "policy")?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
