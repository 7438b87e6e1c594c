//! Sums over the fleet for whoever reads `/metrics`, kept in the transaction that keeps the segment they came
//! in: so each is counted once, and none falls. What may be shown is decided in [`fleet::crowd`].

use fleet::crowd::{CrowdPolicy, Place};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::BTreeMap;
use telemetry::wire::ModelCounters;

use super::store::{TelemetryError, TelemetryStore, Whose};

/// The name of all that found no place of their own.
pub(crate) const OTHERS: &str = "other";
/// Placements that devices tell; others are counted as none.
const PLACEMENTS: [&str; 3] = ["edge", "cloud", "edge-degraded"];
/// In the database their name is empty, which no model's is.
const NOBODY: &str = "";

/// What is shown of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub(crate) model: String,
    pub(crate) version: i64,
    pub(crate) placement: String,
    pub(crate) requests: i64,
    pub(crate) failures: i64,
}

/// All groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Crowds {
    pub(crate) shown: Vec<Crowd>,
    /// Groups that too few devices have added to.
    pub(crate) hidden: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    model: String,
    version: i64,
    placement: String,
}

impl Group {
    fn of(row: &ModelCounters) -> Self {
        let known = PLACEMENTS.contains(&row.placement.as_str());
        let placement = if known { row.placement.clone() } else { String::new() };
        let version = i64::try_from(row.version).unwrap_or(i64::MAX);
        Self { model: row.model.clone(), version, placement }
    }

    fn others(&self) -> Self {
        Self { model: NOBODY.to_owned(), version: 0, placement: self.placement.clone() }
    }
}

/// Adds what a device has counted.
pub(super) fn add(
    transaction: &Transaction<'_>,
    policy: CrowdPolicy,
    (device, tenant): (&str, &str),
    rows: &[ModelCounters],
    now_s: i64,
) -> rusqlite::Result<()> {
    let mut sums = BTreeMap::<Group, (i64, i64)>::new();
    for row in rows {
        let sum = sums.entry(Group::of(row)).or_default();
        sum.0 = sum.0.saturating_add(i64::try_from(row.requests).unwrap_or(i64::MAX));
        sum.1 = sum.1.saturating_add(i64::try_from(row.failures).unwrap_or(i64::MAX));
    }
    for (group, sum) in sums {
        let group = enter(transaction, policy, group, now_s)?;
        let of_group = params![group.model, group.version, group.placement];
        transaction
            .prepare_cached(
                "UPDATE crowds SET pending_requests = min(pending_requests + ?4, 1 << 62),
                 pending_failures = min(pending_failures + ?5, 1 << 62), touched_at_s = ?6
             WHERE model = ?1 AND version = ?2 AND placement = ?3",
            )?
            .execute(params![group.model, group.version, group.placement, sum.0, sum.1, now_s])?;
        transaction
            .prepare_cached("INSERT OR IGNORE INTO crowd_members VALUES (?, ?, ?, ?, ?)")?
            .execute(params![group.model, group.version, group.placement, device, tenant])?;
        let devices = transaction
            .prepare_cached(
                "SELECT count(DISTINCT device) FROM crowd_members
                 WHERE model = ? AND version = ? AND placement = ?",
            )?
            .query_row(of_group, |row| row.get(0))?;
        if policy.shows(devices) {
            show(transaction, &group)?;
        }
    }
    Ok(())
}

/// The group that these figures are added to, which exists then.
fn enter(
    transaction: &Transaction<'_>,
    policy: CrowdPolicy,
    group: Group,
    now_s: i64,
) -> rusqlite::Result<Group> {
    let of_group = params![group.model, group.version, group.placement];
    let known = transaction
        .prepare_cached("SELECT 1 FROM crowds WHERE model = ? AND version = ? AND placement = ?")?
        .exists(of_group)?;
    if known {
        return Ok(group);
    }
    let (groups, hidden) = transaction
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE NOT was_shown) FROM crowds WHERE model != ''",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let group = match policy.place(groups, hidden) {
        Place::Own => group,
        Place::Instead => {
            give_way(transaction, now_s)?;
            group
        }
        Place::Others => group.others(),
    };
    make(transaction, &group, now_s)?;
    Ok(group)
}

fn make(transaction: &Transaction<'_>, group: &Group, now_s: i64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO crowds VALUES (?, ?, ?, 0, 0, 0, 0, ?, 0)")?
        .execute(params![group.model, group.version, group.placement, now_s])?;
    Ok(())
}

/// What the quietest group that was never shown has counted is the others' from now on.
fn give_way(transaction: &Transaction<'_>, now_s: i64) -> rusqlite::Result<()> {
    let quietest = "SELECT model, version, placement FROM crowds
        WHERE model != '' AND NOT was_shown ORDER BY touched_at_s LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Group { model: row.get(0)?, version: row.get(1)?, placement: row.get(2)? })
    };
    let Some(group) = transaction.query_row(quietest, [], read).optional()? else {
        return Ok(());
    };
    let others = group.others();
    make(transaction, &others, now_s)?;
    let both = params![group.model, group.version, group.placement, others.placement];
    transaction.execute(
        "UPDATE crowds SET pending_requests = crowds.pending_requests + gone.pending_requests,
                           pending_failures = crowds.pending_failures + gone.pending_failures
         FROM (SELECT * FROM crowds WHERE model = ?1 AND version = ?2 AND placement = ?3) AS gone
         WHERE crowds.model = '' AND crowds.version = 0 AND crowds.placement = ?4",
        both,
    )?;
    transaction.execute(
        "INSERT OR IGNORE INTO crowd_members
         SELECT '', 0, ?4, device, tenant FROM crowd_members WHERE model = ?1 AND version = ?2 AND placement = ?3",
        both,
    )?;
    remove(transaction, &group)
}

fn remove(connection: &Connection, group: &Group) -> rusqlite::Result<()> {
    for table in ["crowds", "crowd_members"] {
        let delete =
            format!("DELETE FROM {table} WHERE model = ? AND version = ? AND placement = ?");
        connection.execute(&delete, params![group.model, group.version, group.placement])?;
    }
    Ok(())
}

/// What waited is shown.
fn show(transaction: &Transaction<'_>, group: &Group) -> rusqlite::Result<()> {
    let of_group = params![group.model, group.version, group.placement];
    transaction
        .prepare_cached(
            "UPDATE crowds SET requests = requests + pending_requests, failures = failures + pending_failures,
                 pending_requests = 0, pending_failures = 0, was_shown = 1
             WHERE model = ? AND version = ? AND placement = ?",
        )?
        .execute(of_group)?;
    transaction
        .prepare_cached(
            "DELETE FROM crowd_members WHERE model = ? AND version = ? AND placement = ?",
        )?
        .execute(of_group)?;
    Ok(())
}

/// Forgets what somebody has added to what waits, and with it what others have: they are one sum.
pub(super) fn forget(connection: &Connection, whose: Whose, name: &str) -> rusqlite::Result<()> {
    let column = match whose {
        Whose::Device => "device",
        Whose::Tenant => "tenant",
    };
    let select =
        format!("SELECT DISTINCT model, version, placement FROM crowd_members WHERE {column} = ?");
    let mut statement = connection.prepare(&select)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Group { model: row.get(0)?, version: row.get(1)?, placement: row.get(2)? })
    };
    let groups: Vec<Group> = statement.query_map([name], read)?.collect::<rusqlite::Result<_>>()?;
    for group in groups {
        let of_group = params![group.model, group.version, group.placement];
        connection.execute(
            "UPDATE crowds SET pending_requests = 0, pending_failures = 0
             WHERE model = ? AND version = ? AND placement = ?",
            of_group,
        )?;
        connection.execute(
            "DELETE FROM crowd_members WHERE model = ? AND version = ? AND placement = ?",
            of_group,
        )?;
    }
    Ok(())
}

/// Removes groups that nobody has added to since.
pub(super) fn expire(connection: &Connection, before_s: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM crowds WHERE touched_at_s < ?", [before_s])?;
    connection.execute(
        "DELETE FROM crowd_members WHERE (model, version, placement) NOT IN
             (SELECT model, version, placement FROM crowds)",
        [],
    )?;
    Ok(())
}

impl TelemetryStore {
    /// What may be shown of the fleet.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub(crate) fn crowds(&self) -> Result<Crowds, TelemetryError> {
        let connection = self.segments();
        let mut statement = connection.prepare_cached(
            "SELECT model, version, placement, requests, failures FROM crowds WHERE was_shown",
        )?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Crowd {
                model: row.get(0)?,
                version: row.get(1)?,
                placement: row.get(2)?,
                requests: row.get(3)?,
                failures: row.get(4)?,
            })
        };
        let shown: Vec<Crowd> = statement.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
        let hidden = connection
            .prepare_cached("SELECT count(*) FROM crowds WHERE NOT was_shown")?
            .query_row([], |row| row.get(0))?;
        Ok(Crowds { shown, hidden })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CrowdPolicy = CrowdPolicy { devices_min: 2, groups_max: 2 };

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema-2.sql")).unwrap();
        connection
    }

    fn counters(model: &str, placement: &str, requests: u64) -> ModelCounters {
        let (model, placement) = (model.to_owned(), placement.to_owned());
        ModelCounters { model, version: 1, placement, requests, failures: 1, ..Default::default() }
    }

    fn told(connection: &mut Connection, device: &str, row: ModelCounters, now_s: i64) {
        let transaction = connection.transaction().unwrap();
        add(&transaction, POLICY, (device, "t"), &[row], now_s).unwrap();
        transaction.commit().unwrap();
    }

    /// Requests and failures by model and placement, of what is shown.
    fn shown(connection: &Connection) -> Vec<(String, String, i64, i64)> {
        let select = "SELECT model, placement, requests, failures FROM crowds WHERE was_shown";
        let mut statement = connection.prepare(select).unwrap();
        let read =
            |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        statement.query_map([], read).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn row(
        model: &str,
        placement: &str,
        requests: i64,
        failures: i64,
    ) -> (String, String, i64, i64) {
        (model.to_owned(), placement.to_owned(), requests, failures)
    }

    #[test]
    fn each_step_is_that_of_a_crowd() {
        let mut connection = database();
        told(&mut connection, "d-1", counters("m", "edge", 10), 1);
        told(&mut connection, "d-1", counters("m", "edge", 5), 2);
        assert_eq!(shown(&connection), [], "one device twice is no crowd");
        told(&mut connection, "d-2", counters("m", "edge", 1), 3);
        assert_eq!(shown(&connection), [row("m", "edge", 16, 3)]);
        told(&mut connection, "d-2", counters("m", "edge", 100), 4);
        assert_eq!(shown(&connection), [row("m", "edge", 16, 3)], "the next step waits again");
        told(&mut connection, "d-3", counters("m", "edge", 7), 5);
        assert_eq!(shown(&connection), [row("m", "edge", 123, 5)]);
    }

    #[test]
    fn groups_beyond_the_bound_are_others_and_nothing_is_lost() {
        let mut connection = database();
        for device in ["d-1", "d-2"] {
            told(&mut connection, device, counters("a", "edge", 1), 1);
        }
        told(&mut connection, "d-1", counters("hidden", "edge", 10), 2);
        // The third takes the place of the one that was never shown.
        for device in ["d-2", "d-3"] {
            told(&mut connection, device, counters("b", "edge", 2), 3);
        }
        // A fourth finds none.
        told(&mut connection, "d-2", counters("c", "edge", 100), 4);
        let expected = [row("", "edge", 110, 2), row("a", "edge", 2, 2), row("b", "edge", 4, 2)];
        assert_eq!(shown(&connection), expected);
        told(&mut connection, "d-1", counters("a", "on the moon", 5), 5);
        let hidden = "SELECT count(*) FROM crowds WHERE placement = '' AND model = ''";
        let hidden: i64 = connection.query_row(hidden, [], |row| row.get(0)).unwrap();
        assert_eq!(hidden, 1, "no word of a device's is a label");
    }

    #[test]
    fn who_is_forgotten_takes_what_waits_along() {
        let mut connection = database();
        told(&mut connection, "d-1", counters("m", "edge", 10), 1);
        forget(&connection, Whose::Device, "d-1").unwrap();
        told(&mut connection, "d-2", counters("m", "edge", 1), 2);
        told(&mut connection, "d-3", counters("m", "edge", 1), 3);
        assert_eq!(shown(&connection), [row("m", "edge", 2, 2)]);
        expire(&connection, 9).unwrap();
        assert_eq!(shown(&connection), []);
    }
}
