//! Rows become Parquet files: one for each table, day and model of an import.

use datafusion::arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::json::ReaderBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use protocol::id::DeviceId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::AnalyticsError;
use crate::dataset::Staged;
use crate::tables::{Placed, Row, Table};

/// Rows of one record batch.
const BATCH_ROWS: usize = 8192;

/// Rows that wait for their file, by table, day and model.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    rows: BTreeMap<(Table, String, String), Vec<Row>>,
    devices: BTreeMap<(Table, String, String), BTreeSet<String>>,
    count: usize,
}

impl Waiting {
    pub(crate) fn add(&mut self, device: &DeviceId, day: &str, placed: Placed) {
        let key = (placed.table, day.to_owned(), placed.model);
        let devices = self.devices.entry(key.clone()).or_default();
        if !devices.contains(device.as_str()) {
            devices.insert(device.to_string());
        }
        self.rows.entry(key).or_default().push(placed.row);
        self.count += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Writes all of them into `staging`, durably; `name` is new for each call.
    pub(crate) fn write(
        &mut self,
        staging: &Path,
        name: &str,
    ) -> Result<Vec<Staged>, AnalyticsError> {
        let Self { rows, mut devices, .. } = std::mem::take(self);
        let mut staged = Vec::new();
        for (number, (key, rows)) in rows.into_iter().enumerate() {
            let file = format!("{name}-{number}.parquet");
            write_file(&staging.join(&file), key.0, &rows)?;
            let devices = devices.remove(&key).unwrap_or_default().into_iter().collect();
            let (table, day, model) = key;
            let path = format!("{}/day={day}/model={model}/{file}", table.as_str());
            staged.push(Staged { path, rows: rows.len() as u64, devices });
        }
        Ok(staged)
    }
}

fn write_file(path: &Path, table: Table, rows: &[Row]) -> Result<(), AnalyticsError> {
    let schema = table.schema();
    let mut writer = ArrowWriter::try_new(create(path)?, schema.clone(), Some(properties()))?;
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(BATCH_ROWS).build_decoder()?;
    for rows in rows.chunks(BATCH_ROWS) {
        decoder.serialize(rows)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    close(path, writer)
}

/// What Parquet files are written like: zstd, and no name of a program in front of data that stays for years.
fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(3).unwrap_or_default();
    WriterProperties::builder().set_compression(Compression::ZSTD(level)).build()
}

/// A file that only its owner may read: it holds what was sealed.
fn create(path: &Path) -> Result<File, AnalyticsError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(AnalyticsError::file(path))
}

fn close(path: &Path, writer: ArrowWriter<File>) -> Result<(), AnalyticsError> {
    let file = writer.into_inner()?;
    file.sync_all().map_err(AnalyticsError::file(path))
}

/// Copies a file without the rows of a device, and says how many rows are left.
pub(crate) fn copy_without(
    device: &DeviceId,
    from: &Path,
    to: &Path,
) -> Result<u64, AnalyticsError> {
    let file = File::open(from).map_err(AnalyticsError::file(from))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    let mut writer = ArrowWriter::try_new(create(to)?, schema, Some(properties()))?;
    let mut left = 0;
    for batch in builder.build()? {
        let kept = without(device, &batch?)?;
        left += kept.num_rows() as u64;
        writer.write(&kept)?;
    }
    close(to, writer)?;
    Ok(left)
}

fn without(device: &DeviceId, batch: &RecordBatch) -> Result<RecordBatch, AnalyticsError> {
    let column =
        batch.column_by_name("device").and_then(|c| c.as_any().downcast_ref::<StringArray>());
    let Some(devices) = column else {
        let source = io::Error::other("a file of the dataset has no column `device`");
        return Err(AnalyticsError::File { path: Path::new("device").to_owned(), source });
    };
    let is_other = |at| devices.is_null(at) || devices.value(at) != device.as_str();
    let keep: BooleanArray = (0..devices.len()).map(|at| Some(is_other(at))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}
