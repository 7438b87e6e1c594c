//! What the cloud remembers: keys ([`keys`]), those of people who signed in ([`sign_ins`]), and the tenants that they belong to ([`tenants`]),
//! trusted signers ([`signers`]), enrolment tokens ([`tokens`]), devices ([`devices`]), pushed
//! bundles ([`models`]), which of their versions answer ([`policies`]), who should run what
//! ([`assignments`]), and what is asked for by which labels ([`labels`]), how versions reach it in stages ([`rollouts`]), releases of the agent ([`releases`]), which models labs want timed on devices ([`measurements`]), what was asked
//! ([`usage`]), the repository of models ([`mod@repository`]), for whom telemetry is sealed ([`analytics`]), and who changed what ([`audit`]); what a
//! copy from a backup forgets ([`backup`]), and commands beside a running server ([`beside`]); inference nodes
//! ([`nodes`]), what they must know ([`feed`]), and what one of them knows ([`replica`]).
//!
//! One SQLite file in WAL mode with `synchronous=FULL`: what a method returned for is durable.
//! Every change and its audit entry are one transaction.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use together::Together;
use tokio::sync::{Semaphore, watch};

pub mod analytics;
pub mod assignments;
pub mod audit;
pub mod backup;
pub mod beside;
pub mod devices;
pub mod feed;
pub mod keys;
pub mod labels;
pub mod measurements;
pub mod models;
pub mod nodes;
pub mod policies;
pub mod releases;
pub mod replica;
pub mod repository;
pub mod rollouts;
pub mod sign_ins;
pub mod signers;
pub mod tenants;
mod together;
pub mod tokens;
pub mod usage;

#[cfg(test)]
mod tests;

/// Each entry brings the schema from the version of its index to the next.
const MIGRATIONS: [&str; SCHEMA as usize] = [
    include_str!("store/schema-1.sql"),
    include_str!("store/schema-2.sql"),
    include_str!("store/schema-3.sql"),
    include_str!("store/schema-4.sql"),
    include_str!("store/schema-5.sql"),
    include_str!("store/schema-6.sql"),
    include_str!("store/schema-7.sql"),
    include_str!("store/schema-8.sql"),
    include_str!("store/schema-9.sql"),
    include_str!("store/schema-10.sql"),
];
/// The newest schema, as SQLite keeps its number.
const SCHEMA: u32 = 10;
/// Pages of the database that are kept in memory, in KiB. Requests ask it nothing; what is asked now and
/// then is in the system's own cache.
const PAGES_KIB: i64 = 512;
/// Callers that may wait for the database on a thread: one works, the next is ready.
const CALLERS_MAX: usize = 4;
/// How long another process's lock (a backup, `sqlite3`) is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the database did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed, or a stored value is not what this build wrote.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by a newer build.
    #[error("the database has schema {found}, this program knows {SCHEMA} at most")]
    Newer {
        /// The schema's number.
        found: u32,
    },
    /// Written by an older build, which may be running.
    #[error("the database has schema {found}, this program works with {SCHEMA}")]
    Older {
        /// The schema's number.
        found: u32,
    },
    /// A transaction of many changes failed.
    #[error("the database failed: {0}")]
    Together(String),
    /// The task that asked was cut off by a shutdown.
    #[error("the database was closed")]
    Closed,
}

/// The database. Its methods block; [`Database::call`] keeps them off the async threads.
pub struct Store {
    connection: Mutex<Connection>,
    /// The number of the newest change that inference nodes must know of.
    newest: watch::Sender<u64>,
}

impl Store {
    /// Opens the database, making or migrating it where needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -PAGES_KIB)?;
        migrate(&mut connection)?;
        feed::follow(&connection)?;
        let newest = watch::Sender::new(feed::newest(&connection)?);
        Ok(Self { connection: Mutex::new(connection), newest })
    }

    fn read<T, E>(&self, query: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        // A panic inside a transaction rolls it back, so the connection stays usable.
        query(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One immediate transaction: all of it, or nothing when `change` fails.
    fn change<T, E: From<rusqlite::Error>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = change(&transaction)?;
        let newest = feed::newest(&transaction)?;
        transaction.commit()?;
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
        Ok(result)
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = MIGRATIONS.get(found as usize..).ok_or(StoreError::Newer { found })?;
    for sql in missing {
        transaction.execute_batch(sql)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    Ok(transaction.commit()?)
}

/// The database for async callers.
#[derive(Clone)]
pub struct Database(Arc<Shared>);

struct Shared {
    store: Store,
    together: Together,
    callers: Semaphore,
}

impl Database {
    /// Wraps a store.
    pub fn new(store: Store) -> Self {
        let callers = Semaphore::new(CALLERS_MAX);
        Self(Arc::new(Shared { store, together: Together::default(), callers }))
    }

    /// The store itself, for threads that may block.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The number of the newest change that inference nodes must know of, now and from now on.
    pub fn newest_change(&self) -> watch::Receiver<u64> {
        self.0.store.newest.subscribe()
    }

    /// Calls a method of the store on a thread that may block.
    ///
    /// # Errors
    /// The method's own, or [`StoreError::Closed`] while the process ends.
    pub async fn call<T, E>(
        &self,
        method: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        // Whoever waits does so as a task: a thread for each device that connects would be hundreds.
        let _caller = self.0.callers.acquire().await.map_err(|_| StoreError::Closed)?;
        let shared = self.0.clone();
        let joined = tokio::task::spawn_blocking(move || method(&shared.store)).await;
        joined.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Makes a change of one statement, in one transaction with those of others that come meanwhile.
    ///
    /// # Errors
    /// The change's own, the transaction's, or [`StoreError::Closed`] while the process ends.
    pub(crate) async fn together(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (result, is_first) = self.0.together.add(Box::new(change));
        if is_first {
            let shared = self.0.clone();
            tokio::task::spawn_blocking(move || shared.together.write(&shared.store));
        }
        result.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// A column that holds a name, hash or role as text.
fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(column)?;
    parse_text(&text)
}

fn parse_text<T>(text: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse().map_err(|e| conversion_failure(Type::Text, e))
}

fn conversion_failure(
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}

/// SQLite's integers are signed; no count or version that was let in reaches the end.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column that holds a number which is never negative.
fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|e| conversion_failure(Type::Integer, e))
}

/// A column of bytes.
fn bytes_or_empty(row: &Row<'_>, column: &str) -> rusqlite::Result<bytes::Bytes> {
    Ok(row.get::<_, Vec<u8>>(column)?.into())
}

/// A column that holds a version.
fn version(row: &Row<'_>, column: &str) -> rusqlite::Result<protocol::id::Version> {
    let number = unsigned(row, column)?;
    number.try_into().map_err(|e: protocol::id::InvalidName| conversion_failure(Type::Integer, e))
}
