//! The index of the spool: which numbers were given out, which segments lie in the folder, and what was given up.
//! The records themselves are in the segments ([`crate::telemetry`]).

use super::offload::json;
use super::{State, StateError};
use edge::download::Spent;
use edge::spool::shelf::Cause;
use rusqlite::{OptionalExtension, Row, params};
use telemetry::Class;

/// Beside the schema's own, so that they can be left out by an older program.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS telemetry (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    segment INTEGER NOT NULL,
    record INTEGER NOT NULL,
    hours INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO telemetry VALUES (1, 0, 0, 0);
CREATE TABLE IF NOT EXISTS telemetry_segments (
    segment INTEGER PRIMARY KEY,
    class TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    records INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    closed INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS telemetry_last (
    class TEXT PRIMARY KEY,
    segment INTEGER NOT NULL,
    frames INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS telemetry_dropped (
    class TEXT NOT NULL,
    cause TEXT NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (class, cause)
) STRICT;
CREATE TABLE IF NOT EXISTS telemetry_key (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    statement BLOB NOT NULL,
    serial INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS telemetry_spent (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    spent TEXT NOT NULL
) STRICT;
";

/// Records that one reservation is for.
pub(crate) const RECORDS_RESERVED: u64 = 1 << 20;

/// A segment in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) segment: u64,
    pub(crate) class: Class,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) frames: u32,
    /// The hour of operation in which it was closed.
    pub(crate) hour: u64,
    /// Nothing more is written to it; until then the numbers above are those of its beginning.
    pub(crate) closed: bool,
}

/// What is given up, all in all since the device was enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DroppedRow {
    pub(crate) class: Class,
    pub(crate) cause: Cause,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// The numbers of a new segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) segment: u64,
    /// The segment of the class before it, and its frames.
    pub(crate) previous: (u64, u32),
}

fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn class(row: &Row<'_>) -> rusqlite::Result<Option<Class>> {
    Ok(Class::from_name(&row.get::<_, String>("class")?))
}

impl State {
    /// Numbers for a segment that is begun now. They are never given out again, whatever happens next.
    pub(crate) fn begin_segment(&self, of: Class, hour: u64) -> Result<Numbers, StateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute("UPDATE telemetry SET segment = segment + 1", [])?;
        let taken = transaction
            .query_row("SELECT segment FROM telemetry", [], |row| number(row, "segment"))?;
        let sql_last = "SELECT segment, frames FROM telemetry_last WHERE class = ?1";
        let previous = transaction.query_row(sql_last, [of.as_str()], |row| {
            Ok((number(row, "segment")?, row.get("frames")?))
        });
        let insert = "INSERT INTO telemetry_segments VALUES (?1, ?2, 0, 0, 0, ?3, 0)";
        transaction.execute(insert, params![sql(taken), of.as_str(), sql(hour)])?;
        let previous = previous.optional()?.unwrap_or((0, 0));
        transaction.commit()?;
        Ok(Numbers { segment: taken, previous })
    }

    /// The first of [`RECORDS_RESERVED`] numbers for records, never given out again.
    pub(crate) fn reserve_records(&self) -> Result<u64, StateError> {
        let update = "UPDATE telemetry SET record = record + ?1 RETURNING record - ?1 AS first";
        let reserved = sql(RECORDS_RESERVED);
        Ok(self.connection().query_row(update, [reserved], |row| number(row, "first"))?)
    }

    /// Hours in operation so far.
    pub(crate) fn telemetry_hours(&self) -> Result<u64, StateError> {
        let select = "SELECT hours FROM telemetry";
        Ok(self.connection().query_row(select, [], |row| number(row, "hours"))?)
    }

    /// One more.
    pub(crate) fn telemetry_hour(&self) -> Result<(), StateError> {
        self.connection().execute("UPDATE telemetry SET hours = hours + 1", [])?;
        Ok(())
    }

    /// Every segment of the index, oldest first.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentRow>, StateError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT * FROM telemetry_segments ORDER BY segment")?;
        let rows = statement.query_map([], |row| {
            let Some(class) = class(row)? else { return Ok(None) };
            Ok(Some(SegmentRow {
                segment: number(row, "segment")?,
                class,
                bytes: number(row, "bytes")?,
                records: number(row, "records")?,
                frames: row.get("frames")?,
                hour: number(row, "hour")?,
                closed: row.get("closed")?,
            }))
        })?;
        Ok(rows.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?)
    }

    /// A segment is closed.
    pub(crate) fn close_segment(&self, row: &SegmentRow) -> Result<(), StateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let update =
            "UPDATE telemetry_segments SET bytes = ?2, records = ?3, frames = ?4, hour = ?5,
                      closed = 1 WHERE segment = ?1";
        let (segment, bytes, records) = (sql(row.segment), sql(row.bytes), sql(row.records));
        transaction.execute(update, params![segment, bytes, records, row.frames, sql(row.hour)])?;
        let last = "INSERT OR REPLACE INTO telemetry_last VALUES (?1, ?2, ?3)";
        transaction.execute(last, params![row.class.as_str(), segment, row.frames])?;
        Ok(transaction.commit()?)
    }

    /// Segments that are gone, and what was given up with them.
    pub(crate) fn forget_segments(
        &self,
        segments: &[u64],
        dropped: &[DroppedRow],
    ) -> Result<(), StateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for segment in segments {
            let delete = "DELETE FROM telemetry_segments WHERE segment = ?1";
            transaction.execute(delete, [sql(*segment)])?;
        }
        for row in dropped {
            let add = "INSERT INTO telemetry_dropped VALUES (?1, ?2, ?3, ?4)
                       ON CONFLICT (class, cause) DO UPDATE
                       SET records = records + excluded.records, bytes = bytes + excluded.bytes";
            let DroppedRow { class, cause, records, bytes } = row;
            let values = params![class.as_str(), cause.as_str(), sql(*records), sql(*bytes)];
            transaction.execute(add, values)?;
        }
        Ok(transaction.commit()?)
    }

    /// What was given up so far.
    pub(crate) fn dropped(&self) -> Result<Vec<DroppedRow>, StateError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT * FROM telemetry_dropped ORDER BY class, cause")?;
        let rows = statement.query_map([], |row| {
            let cause = Cause::from_name(&row.get::<_, String>("cause")?);
            let Some((class, cause)) = class(row)?.zip(cause) else { return Ok(None) };
            let (records, bytes) = (number(row, "records")?, number(row, "bytes")?);
            Ok(Some(DroppedRow { class, cause, records, bytes }))
        })?;
        Ok(rows.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?)
    }

    /// The newest statement of the analytics key that was believed, and its serial.
    pub(crate) fn analytics_key(&self) -> Result<Option<(Vec<u8>, u64)>, StateError> {
        let select = "SELECT statement, serial FROM telemetry_key";
        let read = |row: &Row<'_>| Ok((row.get("statement")?, number(row, "serial")?));
        Ok(self.connection().query_row(select, [], read).optional()?)
    }

    /// A newer one.
    pub(crate) fn keep_analytics_key(
        &self,
        statement: &[u8],
        serial: u64,
    ) -> Result<(), StateError> {
        let insert = "INSERT OR REPLACE INTO telemetry_key VALUES (1, ?1, ?2)";
        self.connection().execute(insert, params![statement, sql(serial)])?;
        Ok(())
    }

    /// Takes it back.
    pub(crate) fn forget_analytics_key(&self) -> Result<(), StateError> {
        self.connection().execute("DELETE FROM telemetry_key", [])?;
        Ok(())
    }

    /// What was sent in this day and this month, where that is limited.
    pub(crate) fn telemetry_spent(&self) -> Result<Option<Spent>, StateError> {
        self.text("SELECT spent FROM telemetry_spent WHERE ?1 IS NOT NULL", "1")
    }

    /// Writes it down.
    pub(crate) fn keep_telemetry_spent(&self, spent: &Spent) -> Result<(), StateError> {
        let insert = "INSERT OR REPLACE INTO telemetry_spent VALUES (1, ?1)";
        self.connection().execute(insert, [json(spent)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_given_out_twice_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.begin_segment(Class::Events, 0).unwrap().segment, 1);
        let row = SegmentRow {
            segment: 1,
            class: Class::Events,
            bytes: 70,
            records: 3,
            frames: 2,
            hour: 4,
            closed: true,
        };
        state.close_segment(&row).unwrap();
        assert_eq!(state.segments().unwrap(), [row]);
        let dropped =
            DroppedRow { class: Class::Events, cause: Cause::Room, records: 3, bytes: 70 };
        state.forget_segments(&[1], std::slice::from_ref(&dropped)).unwrap();
        assert_eq!(state.reserve_records().unwrap(), 0);
        state.telemetry_hour().unwrap();
        state.keep_analytics_key(b"{}", 7).unwrap();
        drop(state);
        let state = State::open(folder.path()).unwrap();
        let next = state.begin_segment(Class::Events, 1).unwrap();
        assert_eq!(next, Numbers { segment: 2, previous: (1, 2) });
        assert_eq!(state.begin_segment(Class::Samples, 1).unwrap().previous, (0, 0));
        assert_eq!(state.reserve_records().unwrap(), RECORDS_RESERVED);
        assert_eq!(state.telemetry_hours().unwrap(), 1);
        assert_eq!(state.analytics_key().unwrap(), Some((b"{}".to_vec(), 7)));
        state.forget_segments(&[], std::slice::from_ref(&dropped)).unwrap();
        let twice = DroppedRow { records: 6, bytes: 140, ..dropped };
        assert_eq!(state.dropped().unwrap(), [twice]);
    }
}
