//! What the agent must remember over a restart: which version of each model is active, which one was
//! before it and which one comes next ([`slots`]), what trying models out has shown ([`trials`]), and
//! where telemetry lies that was not sent yet ([`mod@telemetry`]). SQLite, WAL, `synchronous=FULL`: what was activated stays activated.

mod attempts;
mod downloads;
mod offload;
#[cfg(test)]
mod released;
mod remembered;
mod repository;
mod slots;
mod telemetry;
mod trials;

pub(crate) use remembered::Remembered;
pub(crate) use slots::ProbationRow;
pub(crate) use telemetry::{DroppedRow, Numbers, RECORDS_RESERVED, SegmentRow};
pub(crate) use trials::{Programs, Quarantined};

use edge::update::Target;
use protocol::id::ModelName;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the state database cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the state database is of version {0}, newer than this program")]
    Newer(i64),
    #[error("the state database holds a row that does not parse: {0}")]
    Damaged(String),
}

/// One model's active version, and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActiveRow {
    pub(crate) model: ModelName,
    pub(crate) active: Target,
    pub(crate) previous: Option<Target>,
}

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE active (
    model TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    previous_version INTEGER,
    previous_bundle TEXT
) STRICT;
PRAGMA user_version = 1;
";

/// The state database.
pub(crate) struct State(Mutex<Connection>);

impl State {
    /// Opens `state.db` in the folder, making it where there is none.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, StateError> {
        let connection = Connection::open(state_dir.join("state.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        match connection.pragma_query_value(None, "user_version", |row| row.get(0))? {
            0 => connection.execute_batch(&format!("BEGIN;{SCHEMA}COMMIT;"))?,
            SCHEMA_VERSION => {}
            newer => return Err(StateError::Newer(newer)),
        }
        connection.execute_batch(attempts::TABLE)?;
        connection.execute_batch(downloads::TABLE)?;
        connection.execute_batch(offload::TABLES)?;
        connection.execute_batch(remembered::TABLE)?;
        connection.execute_batch(repository::TABLES)?;
        connection.execute_batch(slots::TABLES)?;
        connection.execute_batch(telemetry::TABLES)?;
        connection.execute_batch(trials::TABLES)?;
        Ok(Self(Mutex::new(connection)))
    }

    /// Opens an existing `state.db` for looking only, beside a running agent or without one.
    pub(crate) fn inspect(state_dir: &Path) -> Result<Self, StateError> {
        let path = state_dir.join("state.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        // Without a write-ahead log nobody has it open, and nothing needs to be made beside it.
        let immutable = if state_dir.join("state.db-wal").exists() { "0" } else { "1" };
        let uri = format!("file:{}?immutable={immutable}", escaped(&path));
        let connection = Connection::open_with_flags(uri, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        Ok(Self(Mutex::new(connection)))
    }

    /// What SQLite finds wrong with the file; `ok` when nothing is.
    pub(crate) fn quick_check(&self) -> Result<String, StateError> {
        Ok(self.connection().query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All active versions.
    pub(crate) fn active(&self) -> Result<Vec<ActiveRow>, StateError> {
        let connection = self.connection();
        let mut statement = connection.prepare(
            "SELECT model, version, bundle, previous_version, previous_bundle FROM active ORDER BY model",
        )?;
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, (row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?)))
        })?;
        rows.map(|row| parse_row(row?)).collect()
    }

    /// The version before the active one.
    pub(crate) fn previous(&self, model: &ModelName) -> Result<Option<Target>, StateError> {
        let row: Option<(Option<i64>, Option<String>)> = self
            .connection()
            .query_row(
                "SELECT previous_version, previous_bundle FROM active WHERE model = ?1",
                [model.as_str()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        match row {
            Some((Some(version), Some(bundle))) => Ok(Some(parse_target(version, &bundle)?)),
            _ => Ok(None),
        }
    }
}

/// A path as it stands in a `file:` URI.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

type Row = (String, (i64, String), (Option<i64>, Option<String>));

fn parse_row((model, (version, bundle), previous): Row) -> Result<ActiveRow, StateError> {
    let previous = match previous {
        (Some(version), Some(bundle)) => Some(parse_target(version, &bundle)?),
        _ => None,
    };
    let model = model.parse().map_err(|_| StateError::Damaged(model))?;
    Ok(ActiveRow { model, active: parse_target(version, &bundle)?, previous })
}

fn parse_target(version: i64, bundle: &str) -> Result<Target, StateError> {
    let damaged = || StateError::Damaged(format!("{version} {bundle}"));
    Ok(Target {
        version: version.to_string().parse().map_err(|_| damaged())?,
        bundle: bundle.parse().map_err(|_| damaged())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_an_older_agent_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let raw = Connection::open(folder.path().join("state.db")).unwrap();
        raw.execute_batch(SCHEMA).unwrap();
        drop(raw);
        assert!(State::inspect(folder.path()).unwrap().quarantine().unwrap().is_empty());
        assert!(State::open(folder.path()).unwrap().quarantine().unwrap().is_empty());
    }

    #[test]
    fn a_newer_database_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let raw = Connection::open(folder.path().join("state.db")).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(State::open(folder.path()), Err(StateError::Newer(99))));
    }
}
