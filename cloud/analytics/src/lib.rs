//! Reads what devices told: segments opened with the operator's analytics key, kept as Parquet, asked by SQL.
//!
//! This runs where the private key is, which need not be where the cloud is. [`import`] opens sealed segments and puts
//! each record into a [`dataset`] once, however often it comes; [`query`] asks it. The files are plain Parquet
//! (`TABLE/day=YYYY-MM-DD/model=NAME/*.parquet`), so that any other tool can read them too; [`anonymity`] is what
//! others may be shown.

pub mod anonymity;
pub mod dataset;
pub mod import;
pub mod query;
pub mod tables;

mod quantile;
mod write;

/// Why the dataset cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// The folder or a file in it.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The journal of imports.
    #[error("the dataset's journal: {0}")]
    Journal(#[from] rusqlite::Error),
    /// Records that do not become columns.
    #[error("records do not fit their table: {0}")]
    Columns(#[from] datafusion::arrow::error::ArrowError),
    /// A Parquet file.
    #[error("Parquet: {0}")]
    Parquet(#[from] datafusion::parquet::errors::ParquetError),
    /// The query, or its execution.
    #[error("{0}")]
    Query(#[from] datafusion::error::DataFusionError),
    /// Another process writes this dataset.
    #[error("another process writes {0}; wait until it is done")]
    Busy(std::path::PathBuf),
    /// The answer is larger than what is shown at once.
    #[error("more than {0} rows; add a LIMIT, or use --json, which has none")]
    ManyRows(usize),
}

impl AnalyticsError {
    fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
