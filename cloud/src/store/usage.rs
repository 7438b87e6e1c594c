//! What was asked, by hour, tenant, caller and model. Sums arrive in groups, one transaction each.

use protocol::id::NodeId;
use protocol::wire;
use rusqlite::{Row, Transaction, params};
use serde::Serialize;

use super::{Store, StoreError, to_sql, unsigned};

/// Before the caller, where nobody waited for the answers: checks of what a device has answered itself.
pub const BACKGROUND: &str = "background ";

/// What one sum is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageOf {
    /// The hour's beginning, Unix seconds.
    pub hour_s: i64,
    /// The tenant.
    pub tenant: String,
    /// `key ID` or `device ID`; [`BACKGROUND`] before it for what nobody waited for.
    pub caller: String,
    /// The model; empty for one that is not known here.
    pub model: String,
}

/// A sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Requests, the refused ones too.
    pub requests: u64,
    /// Requests that got no answer.
    pub refused: u64,
    /// Microseconds of pre-processing, model and post-processing.
    pub compute_us: u64,
    /// Bytes of the requests' bodies or tensors.
    pub bytes_in: u64,
    /// Bytes of the answers' tensors.
    pub bytes_out: u64,
}

/// By what usage is told apart in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageBy {
    /// Tenants.
    Tenant,
    /// Keys and devices.
    Caller,
    /// Models.
    Model,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageLine {
    /// The tenant, caller or model.
    pub of: String,
    /// The sums.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Store {
    /// Adds sums, and notes when keys were used last, all in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_usage(
        &self,
        sums: &[(UsageOf, Usage)],
        keys_used: &[(String, i64)],
    ) -> Result<(), StoreError> {
        self.change(|transaction| Ok(add(transaction, sums, keys_used)?))
    }

    /// Adds what a node metered, unless this batch was added before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_node_usage(&self, node: &NodeId, batch: &wire::NodeUsage) -> Result<(), StoreError> {
        let sql = "UPDATE nodes SET usage_batch = ?1 WHERE id = ?2 AND usage_batch < ?1";
        let sums: Vec<_> = batch.sums.iter().map(of_node).collect();
        let keys: Vec<_> = batch.keys_used.iter().map(|key| (key.id.clone(), key.at_s)).collect();
        self.change(|transaction| {
            if transaction.execute(sql, params![to_sql(batch.batch), node.as_str()])? == 1 {
                add(transaction, &sums, &keys)?;
            }
            Ok(())
        })
    }

    /// Sums of the hours that begin in `from_s..to_s`, the busiest first. What nobody waited for has
    /// lines of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(&self, from_s: i64, to_s: i64, by: UsageBy) -> Result<Vec<UsageLine>, StoreError> {
        let of = |column| {
            format!("iif(caller LIKE '{BACKGROUND}%', {column} || ' (background)', {column})")
        };
        let column = match by {
            UsageBy::Tenant => of("tenant"),
            UsageBy::Caller => "caller".to_owned(),
            UsageBy::Model => of("model"),
        };
        let sql = format!(
            "SELECT {column} AS of, sum(requests) AS requests, sum(refused) AS refused,
                    sum(compute_us) AS compute_us, sum(bytes_in) AS bytes_in,
                    sum(bytes_out) AS bytes_out
             FROM usage WHERE hour_s >= ? AND hour_s < ?
             GROUP BY of ORDER BY requests DESC, of LIMIT 10000"
        );
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![from_s, to_s], line)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<UsageLine> {
    let usage = Usage {
        requests: unsigned(row, "requests")?,
        refused: unsigned(row, "refused")?,
        compute_us: unsigned(row, "compute_us")?,
        bytes_in: unsigned(row, "bytes_in")?,
        bytes_out: unsigned(row, "bytes_out")?,
    };
    Ok(UsageLine { of: row.get("of")?, usage })
}

fn add(
    transaction: &Transaction<'_>,
    sums: &[(UsageOf, Usage)],
    keys_used: &[(String, i64)],
) -> rusqlite::Result<()> {
    let add = "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT (hour_s, tenant, caller, model) DO UPDATE SET
                   requests = requests + excluded.requests,
                   refused = refused + excluded.refused,
                   compute_us = compute_us + excluded.compute_us,
                   bytes_in = bytes_in + excluded.bytes_in,
                   bytes_out = bytes_out + excluded.bytes_out";
    let used = "UPDATE api_keys SET last_used_s = max(ifnull(last_used_s, 0), ?) WHERE id = ?";
    let mut statement = transaction.prepare_cached(add)?;
    for (of, usage) in sums {
        statement.execute(params![
            of.hour_s,
            of.tenant,
            of.caller,
            of.model,
            to_sql(usage.requests),
            to_sql(usage.refused),
            to_sql(usage.compute_us),
            to_sql(usage.bytes_in),
            to_sql(usage.bytes_out)
        ])?;
    }
    let mut statement = transaction.prepare_cached(used)?;
    for (id, at_s) in keys_used {
        statement.execute(params![at_s, id])?;
    }
    Ok(())
}

/// One sum, as a node sends it.
pub(super) fn sum(row: &Row<'_>) -> rusqlite::Result<wire::UsageSum> {
    Ok(wire::UsageSum {
        hour_s: row.get("hour_s")?,
        tenant: row.get("tenant")?,
        caller: row.get("caller")?,
        model: row.get("model")?,
        requests: unsigned(row, "requests")?,
        refused: unsigned(row, "refused")?,
        compute_us: unsigned(row, "compute_us")?,
        bytes_in: unsigned(row, "bytes_in")?,
        bytes_out: unsigned(row, "bytes_out")?,
    })
}

fn of_node(sum: &wire::UsageSum) -> (UsageOf, Usage) {
    let of = UsageOf {
        hour_s: sum.hour_s,
        tenant: sum.tenant.clone(),
        caller: sum.caller.clone(),
        model: sum.model.clone(),
    };
    let usage = Usage {
        requests: sum.requests,
        refused: sum.refused,
        compute_us: sum.compute_us,
        bytes_in: sum.bytes_in,
        bytes_out: sum.bytes_out,
    };
    (of, usage)
}
