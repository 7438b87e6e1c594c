//! Tenants: whom keys and devices belong to, and which models theirs may ask.

use protocol::id::TenantName;
use protocol::pattern::ModelPatterns;
use rusqlite::params;
use serde::Serialize;

use super::audit::{By, append};
use super::{Store, StoreError, parsed};

/// Tenants that there may be.
pub const TENANTS_MAX: u32 = 10_000;

/// A tenant.
#[derive(Debug, Clone, Serialize)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// What its keys and devices may ask.
    pub models: ModelPatterns,
    /// Unix seconds.
    pub created_at_s: i64,
}

impl Store {
    /// Makes a tenant, or says anew what it may ask; false when there are [`TENANTS_MAX`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_tenant(
        &self,
        by: &By,
        name: &TenantName,
        models: &ModelPatterns,
    ) -> Result<bool, StoreError> {
        let others = "SELECT count(*) FROM tenants WHERE name <> ?";
        let sql = "INSERT INTO tenants (name, models, created_at_s) VALUES (?, ?, ?)
                   ON CONFLICT (name) DO UPDATE SET models = excluded.models";
        self.change(|transaction| {
            let others: u32 = transaction.query_row(others, [name.as_str()], |row| row.get(0))?;
            if others >= TENANTS_MAX {
                return Ok(false);
            }
            transaction.execute(sql, params![name.as_str(), models.to_string(), by.now_s])?;
            append(transaction, by, "tenant.set", name.as_str(), &models.to_string())?;
            Ok(true)
        })
    }

    /// Every tenant, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tenants(&self) -> Result<Vec<Tenant>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT name, models, created_at_s FROM tenants ORDER BY name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Tenant {
                    name: parsed(row, "name")?,
                    models: parsed(row, "models")?,
                    created_at_s: row.get("created_at_s")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
