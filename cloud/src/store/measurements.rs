//! Orders of labs to time models on devices, until a while after they are done. The files of an order
//! are kept, and shown to its device, until its report has come.

use protocol::id::{ContentHash, DeviceId};
use protocol::limits::ORDERS_WAITING_MAX;
use protocol::measurement::{Order, Report, SignedOrder};
use protocol::wire::MeasurementReport;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::{Store, StoreError, bytes_or_empty, parsed, to_sql, unsigned};

/// How long an order and its report can be asked for: a week after its end.
const KEPT_S: i64 = 7 * 24 * 60 * 60;

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// The id was used before.
    #[error("there is an order {0} already")]
    Known(String),
    /// The device has enough to do.
    #[error("{ORDERS_WAITING_MAX} orders wait for device {0} already")]
    Waiting(DeviceId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for OrderError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An order, and what became of it.
#[derive(Debug, Clone)]
pub struct MeasurementRecord {
    /// For which device.
    pub device: DeviceId,
    /// Until when it may begin, Unix seconds.
    pub expires_at_s: i64,
    /// What the device said, once it has.
    pub report: Option<Report>,
}

/// Files that nothing needs any more.
pub type Unneeded = Vec<ContentHash>;

impl Store {
    /// Takes an order that was verified. Gives the files that only older orders needed, which ended.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn order_measurement(
        &self,
        by: &By,
        signed: &SignedOrder,
        order: &Order,
    ) -> Result<Unneeded, OrderError> {
        self.change(|transaction| {
            let unneeded = forget_old(transaction, by.now_s)?;
            check(transaction, order)?;
            let sql =
                "INSERT INTO measurements (id, device, signed_order, ordered_at_s, expires_at_s)
                       VALUES (?, ?, ?, ?, ?)";
            let device = order.device.as_str();
            let values = params![order.id, device, signed.to_json(), by.now_s, order.expires_at_s];
            transaction.execute(sql, values)?;
            let sql = "INSERT OR IGNORE INTO measured_files VALUES (?, ?, ?)";
            for file in order.files() {
                let values = params![order.id, file.sha256.to_string(), to_sql(file.size_bytes)];
                transaction.execute(sql, values)?;
            }
            bump_revision(transaction)?;
            append(transaction, by, "device.measure", device, &order.id)?;
            Ok(still_unneeded(transaction, unneeded)?)
        })
    }

    /// An order, and what became of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn measurement(&self, id: &str) -> Result<Option<MeasurementRecord>, StoreError> {
        let sql = "SELECT device, expires_at_s, report FROM measurements WHERE id = ?";
        self.read(|connection| {
            let record = connection.query_row(sql, [id], |row| {
                let report: Option<Vec<u8>> = row.get("report")?;
                Ok(MeasurementRecord {
                    device: parsed(row, "device")?,
                    expires_at_s: row.get("expires_at_s")?,
                    report: report.map(|json| readable(&json)),
                })
            });
            Ok(record.optional()?)
        })
    }

    /// What a device says of its orders; what is not its own, or was answered before, is left out.
    /// Gives the files that nothing needs any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn measured(
        &self,
        device: &DeviceId,
        reports: &[MeasurementReport],
    ) -> Result<Unneeded, StoreError> {
        let sql =
            "UPDATE measurements SET report = ? WHERE id = ? AND device = ? AND report IS NULL";
        self.change(|transaction| {
            let mut unneeded = Unneeded::new();
            for report in reports {
                let json = readable(&report.report).to_json();
                let values = params![json, report.id, device.as_str()];
                if transaction.execute(sql, values)? == 1 {
                    unneeded.extend(let_files_go(transaction, &report.id)?);
                }
            }
            if !unneeded.is_empty() {
                bump_revision(transaction)?;
            }
            Ok(still_unneeded(transaction, unneeded)?)
        })
    }
}

/// What a device wrote; where that is no report, that it is none.
fn readable(json: &[u8]) -> Report {
    Report::from_json(json).unwrap_or_else(|_| Report::Refused {
        why: "the device's report cannot be read".to_owned(),
        hint: "is its agent of another version?".to_owned(),
    })
}

/// The orders that a device has not answered, as they were signed.
pub(super) fn waiting(
    connection: &Connection,
    device: &DeviceId,
) -> rusqlite::Result<Vec<bytes::Bytes>> {
    let sql = "SELECT signed_order FROM measurements WHERE device = ? AND report IS NULL
               ORDER BY ordered_at_s, id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([device.as_str()], |row| bytes_or_empty(row, "signed_order"))?;
    rows.collect()
}

/// The size of a file that an order of this device names.
pub(super) fn file_size(
    connection: &Connection,
    device: &DeviceId,
    blob: ContentHash,
) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT size_bytes FROM measured_files JOIN measurements ON measurement = id
               WHERE device = ? AND sha256 = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let key = params![device.as_str(), blob.to_string()];
    statement.query_row(key, |row| unsigned(row, "size_bytes")).optional()
}

fn check(transaction: &Transaction<'_>, order: &Order) -> Result<(), OrderError> {
    let exists =
        |sql: &str, id: &str| transaction.query_row(sql, [id], |row| row.get::<_, bool>(0));
    let device = order.device.as_str();
    if !exists("SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?)", device)? {
        return Err(OrderError::NoDevice(order.device.clone()));
    }
    if exists("SELECT EXISTS (SELECT 1 FROM measurements WHERE id = ?)", &order.id)? {
        return Err(OrderError::Known(order.id.clone()));
    }
    if waiting(transaction, &order.device)?.len() >= ORDERS_WAITING_MAX {
        return Err(OrderError::Waiting(order.device.clone()));
    }
    Ok(())
}

/// Forgets orders whose device never came, and those that were done long ago.
fn forget_old(transaction: &Transaction<'_>, now_s: i64) -> rusqlite::Result<Unneeded> {
    let sql = "SELECT id FROM measurements
               WHERE expires_at_s < ?2 OR (expires_at_s < ?1 AND report IS NULL)";
    let mut statement = transaction.prepare_cached(sql)?;
    let ids = statement.query_map([now_s, now_s - KEPT_S], |row| row.get("id"))?;
    let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
    let mut unneeded = Unneeded::new();
    for id in ids {
        unneeded.extend(let_files_go(transaction, &id)?);
        transaction.execute("DELETE FROM measurements WHERE id = ?", [id])?;
    }
    Ok(unneeded)
}

fn let_files_go(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<Unneeded> {
    let sql = "DELETE FROM measured_files WHERE measurement = ? RETURNING sha256";
    let mut statement = transaction.prepare_cached(sql)?;
    let files = statement.query_map([id], |row| parsed(row, "sha256"))?;
    files.collect()
}

/// Those of the files that no bundle and no other order names.
fn still_unneeded(transaction: &Transaction<'_>, files: Unneeded) -> rusqlite::Result<Unneeded> {
    let sql = "SELECT EXISTS (SELECT 1 FROM bundle_files WHERE sha256 = ?1
               UNION ALL SELECT 1 FROM measured_files WHERE sha256 = ?1)";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut unneeded = Unneeded::new();
    for file in files {
        if !statement.query_row([file.to_string()], |row| row.get::<_, bool>(0))? {
            unneeded.push(file);
        }
    }
    Ok(unneeded)
}

#[cfg(test)]
mod tests;
