//! Asking the dataset, by SQL (DataFusion). Reading only: no statement changes anything.
//!
//! Besides SQL's own functions, `histogram_quantile(column, share)` merges the histograms of table `aggregates`: the
//! 99th percentile over any devices, days and reasons is exact to the width of a bucket (9 %).

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::StreamExt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::AnalyticsError;
use crate::quantile::histogram_quantile;
use crate::tables::Table;

/// Memory that a query may take, in bytes; what does not fit is sorted and grouped on disk.
const MEMORY_MAX_BYTES: usize = 1 << 30;

/// An answer in words, for a table on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, each value as text.
    pub rows: Vec<Vec<String>>,
}

/// The tables of a dataset, ready to be asked.
pub struct Query {
    context: SessionContext,
}

impl Query {
    /// Opens the tables below a dataset's folder. Another process may import meanwhile: files come whole.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub async fn open(folder: &Path) -> Result<Self, AnalyticsError> {
        let runtime =
            RuntimeEnvBuilder::new().with_memory_limit(MEMORY_MAX_BYTES, 1.0).build_arc()?;
        let mut config = SessionConfig::new().with_information_schema(true);
        config.options_mut().execution.parquet.pushdown_filters = true;
        let context = SessionContext::new_with_config_rt(config, runtime);
        context.register_udaf(histogram_quantile());
        for table in Table::ALL {
            register(&context, table, &folder.join(table.as_str())).await?;
        }
        Ok(Self { context })
    }

    /// Asks, and keeps the answer; at most `rows_max` rows.
    ///
    /// # Errors
    /// The statement is none, changes something, or fails; [`AnalyticsError::ManyRows`].
    pub async fn ask(&self, sql: &str, rows_max: usize) -> Result<Answer, AnalyticsError> {
        let frame = self.frame(sql).await?;
        let columns = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
        let mut stream = frame.execute_stream().await?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.next().await {
            rows.extend(texts(&batch?)?);
            if rows.len() > rows_max {
                return Err(AnalyticsError::ManyRows(rows_max));
            }
        }
        Ok(Answer { columns, rows })
    }

    /// Asks, and writes a JSON object for each row as it comes.
    ///
    /// # Errors
    /// As [`Query::ask`], or it cannot be written.
    pub async fn write_json(&self, sql: &str, to: impl Write) -> Result<(), AnalyticsError> {
        let mut stream = self.frame(sql).await?.execute_stream().await?;
        let mut writer = LineDelimitedWriter::new(to);
        while let Some(batch) = stream.next().await {
            writer.write(&batch?)?;
        }
        Ok(writer.finish()?)
    }

    async fn frame(&self, sql: &str) -> Result<datafusion::dataframe::DataFrame, AnalyticsError> {
        let only_reads = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        Ok(self.context.sql_with_options(sql, only_reads).await?)
    }
}

/// A table over its folder; an empty one where there is no folder yet.
async fn register(
    context: &SessionContext,
    table: Table,
    folder: &Path,
) -> Result<(), AnalyticsError> {
    let partitions = [("day", DataType::Utf8), ("model", DataType::Utf8)];
    if !folder.is_dir() {
        let own = table.schema();
        let mut fields: Vec<_> = own.fields().iter().map(|field| field.as_ref().clone()).collect();
        let field = |(name, kind): &(&str, DataType)| {
            datafusion::arrow::datatypes::Field::new(*name, kind.clone(), true)
        };
        fields.extend(partitions.iter().map(field));
        let schema = Arc::new(Schema::new(fields));
        let empty = MemTable::try_new(schema.clone(), vec![vec![RecordBatch::new_empty(schema)]])?;
        context.register_table(table.as_str(), Arc::new(empty))?;
        return Ok(());
    }
    let partitions = partitions.map(|(name, kind)| (name.to_owned(), kind)).to_vec();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_extension(".parquet")
        .with_table_partition_cols(partitions);
    let url = ListingTableUrl::parse(format!("{}/", folder.display()))?;
    let config =
        ListingTableConfig::new(url).with_listing_options(options).with_schema(table.schema());
    context.register_table(table.as_str(), Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}

fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, AnalyticsError> {
    let options = FormatOptions::default();
    let columns =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let row = |at| columns.iter().map(|column| column.value(at).to_string()).collect();
    Ok((0..batch.num_rows()).map(row).collect())
}
