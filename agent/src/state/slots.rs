//! The slots of each model: the active version and the one before it stand in the schema's own table;
//! beside it, the candidate that waits, and the probation of what has taken over. Each change of a slot is
//! one transaction: after a power cut the old or the new holds, and never half of both.

use super::trials::insert_into_quarantine;
use super::{Quarantined, State, StateError, parse_target};
use edge::probation::{Lives, Standing};
use edge::update::Target;
use protocol::id::ModelName;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::time::Duration;

/// Beside the schema's own table, so that an older agent goes on working with it.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS candidates (
    model TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    begun INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS probations (
    model TEXT PRIMARY KEY,
    bundle TEXT NOT NULL,
    standing TEXT NOT NULL,
    provider TEXT NOT NULL,
    reference_us INTEGER,
    lived_s INTEGER NOT NULL,
    open INTEGER NOT NULL,
    well INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    boot TEXT NOT NULL
) STRICT;
";

/// A version that has taken over and is not trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbationRow {
    pub(crate) bundle: protocol::id::ContentHash,
    pub(crate) standing: Standing,
    /// Who computed it when it took over.
    pub(crate) provider: String,
    /// What the median run of the version before took.
    pub(crate) reference: Option<Duration>,
    /// How long this standing has lasted.
    pub(crate) lived: Duration,
    pub(crate) lives: Lives,
}

impl State {
    /// The candidate that was staged, and how often it has been begun with since.
    pub(crate) fn candidate(&self, model: &ModelName) -> Result<Option<(Target, u32)>, StateError> {
        let sql = "SELECT version, bundle, begun FROM candidates WHERE model = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let row: Option<(i64, String, u32)> =
            self.connection().query_row(sql, [model.as_str()], read).optional()?;
        row.map(|(version, bundle, begun)| Ok((parse_target(version, &bundle)?, begun))).transpose()
    }

    /// All candidates.
    pub(crate) fn candidates(&self) -> Result<Vec<(ModelName, Target)>, StateError> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT model, version, bundle FROM candidates")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.map(|row| {
            let (model, version, bundle): (String, i64, String) = row?;
            let model = model.parse().map_err(|_| StateError::Damaged(model))?;
            Ok((model, parse_target(version, &bundle)?))
        })
        .collect()
    }

    /// Puts a verified bundle into the candidate's slot.
    pub(crate) fn stage(&self, model: &ModelName, target: Target) -> Result<(), StateError> {
        self.connection().execute(
            "INSERT INTO candidates (model, version, bundle, begun) VALUES (?1, ?2, ?3, 0)
             ON CONFLICT (model) DO UPDATE SET version = excluded.version,
                bundle = excluded.bundle, begun = 0 WHERE bundle <> excluded.bundle",
            params![model.as_str(), signed(target), target.bundle.to_string()],
        )?;
        Ok(())
    }

    /// Something is done with the candidate that might end the agent: how often that has begun, with this
    /// time, without an end.
    pub(crate) fn candidate_begins(&self, model: &ModelName) -> Result<u32, StateError> {
        let sql = "UPDATE candidates SET begun = begun + 1 WHERE model = ?1 RETURNING begun";
        let begun = self.connection().query_row(sql, [model.as_str()], |row| row.get(0));
        Ok(begun.optional()?.unwrap_or(1))
    }

    /// Another one was at work when the agent ended: the last beginning is not held against it.
    pub(crate) fn candidate_cleared(&self, model: &ModelName) -> Result<(), StateError> {
        let sql = "UPDATE candidates SET begun = max(begun - 1, 0) WHERE model = ?1";
        self.connection().execute(sql, [model.as_str()])?;
        Ok(())
    }

    /// The agent outlived it.
    pub(crate) fn candidate_ended(&self, model: &ModelName) -> Result<(), StateError> {
        let sql = "UPDATE candidates SET begun = 0 WHERE model = ?1";
        self.connection().execute(sql, [model.as_str()])?;
        Ok(())
    }

    /// Empties the candidate's slot.
    pub(crate) fn unstage(&self, model: &ModelName) -> Result<(), StateError> {
        self.connection().execute("DELETE FROM candidates WHERE model = ?1", [model.as_str()])?;
        Ok(())
    }

    /// Makes a version the active one, on probation, and empties the candidate's slot. What was active
    /// becomes the previous one; unless it was on trial itself: then the one before it stays, because that
    /// one is trusted. Gives back the version that is in no slot any more.
    pub(crate) fn switch(
        &self,
        model: &ModelName,
        target: Target,
        row: &ProbationRow,
    ) -> Result<Option<Target>, StateError> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        let slots = slots(&change, model)?;
        let on_trial = probation(&change, model)?.is_some_and(|p| p.standing == Standing::Trial);
        let active = slots.active.filter(|active| *active != target);
        let previous = slots.previous.filter(|previous| *previous != target);
        let (keep, drop) = match (active, previous) {
            (Some(active), Some(previous)) if on_trial => (Some(previous), Some(active)),
            (Some(active), previous) => (Some(active), previous),
            (None, previous) => (previous, None),
        };
        set_slots(&change, model, Slots { active: Some(target), previous: keep })?;
        keep_probation(&change, model, row)?;
        change.execute("DELETE FROM candidates WHERE model = ?1", [model.as_str()])?;
        change.commit()?;
        Ok(drop)
    }

    /// The version before answers again, or none where there is none; what was active is in quarantine.
    /// Gives back what is active now.
    pub(crate) fn roll_back(
        &self,
        model: &ModelName,
        entry: &Quarantined,
    ) -> Result<Option<Target>, StateError> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        let active = slots(&change, model)?.previous;
        set_slots(&change, model, Slots { active, previous: None })?;
        change.execute("DELETE FROM probations WHERE model = ?1", [model.as_str()])?;
        insert_into_quarantine(&change, entry)?;
        change.commit()?;
        Ok(active)
    }

    /// The probation of a model's active version, if it is on one.
    pub(crate) fn probation(&self, model: &ModelName) -> Result<Option<ProbationRow>, StateError> {
        probation(&self.connection(), model)
    }

    /// Writes down how a probation stands.
    pub(crate) fn keep_probation(
        &self,
        model: &ModelName,
        row: &ProbationRow,
    ) -> Result<(), StateError> {
        keep_probation(&self.connection(), model, row)
    }

    /// The version is trusted from now on.
    pub(crate) fn settle(&self, model: &ModelName) -> Result<(), StateError> {
        self.connection().execute("DELETE FROM probations WHERE model = ?1", [model.as_str()])?;
        Ok(())
    }

    /// The agent ends in order: nothing that it was doing is to blame.
    pub(crate) fn ends_in_order(&self) -> Result<(), StateError> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        change.execute("UPDATE candidates SET begun = 0", [])?;
        change.execute("UPDATE probations SET open = 0, starts = 0", [])?;
        Ok(change.commit()?)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Slots {
    active: Option<Target>,
    previous: Option<Target>,
}

fn slots(connection: &Connection, model: &ModelName) -> Result<Slots, StateError> {
    let sql =
        "SELECT version, bundle, previous_version, previous_bundle FROM active WHERE model = ?1";
    let read =
        |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?)));
    type Row = ((i64, String), (Option<i64>, Option<String>));
    let row: Option<Row> = connection.query_row(sql, [model.as_str()], read).optional()?;
    let Some(((version, bundle), previous)) = row else { return Ok(Slots::default()) };
    let previous = match previous {
        (Some(version), Some(bundle)) => Some(parse_target(version, &bundle)?),
        _ => None,
    };
    Ok(Slots { active: Some(parse_target(version, &bundle)?), previous })
}

fn set_slots(change: &Transaction<'_>, model: &ModelName, slots: Slots) -> Result<(), StateError> {
    let Some(active) = slots.active else {
        change.execute("DELETE FROM active WHERE model = ?1", [model.as_str()])?;
        return Ok(());
    };
    change.execute(
        "INSERT OR REPLACE INTO active (model, version, bundle, previous_version, previous_bundle)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            model.as_str(),
            signed(active),
            active.bundle.to_string(),
            slots.previous.map(signed),
            slots.previous.map(|target| target.bundle.to_string()),
        ],
    )?;
    Ok(())
}

fn probation(
    connection: &Connection,
    model: &ModelName,
) -> Result<Option<ProbationRow>, StateError> {
    let sql = "SELECT bundle, standing, provider, reference_us, lived_s, open, well, starts, \
               crashes, boot FROM probations WHERE model = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let texts: (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let times: (Option<i64>, i64) = (row.get(3)?, row.get(4)?);
        let lives = Lives {
            open: row.get(5)?,
            well: row.get(6)?,
            starts: row.get(7)?,
            crashes: row.get(8)?,
            boot: row.get(9)?,
        };
        Ok((texts, times, lives))
    };
    let row = connection.query_row(sql, [model.as_str()], read).optional()?;
    let Some(((bundle, standing, provider), (reference_us, lived_s), lives)) = row else {
        return Ok(None);
    };
    let standing = match standing.as_str() {
        "trial" => Standing::Trial,
        "soak" => Standing::Soak,
        _ => return Err(StateError::Damaged(standing)),
    };
    Ok(Some(ProbationRow {
        bundle: bundle.parse().map_err(|_| StateError::Damaged(bundle))?,
        standing,
        provider,
        reference: reference_us.map(|us| Duration::from_micros(us.unsigned_abs())),
        lived: Duration::from_secs(lived_s.unsigned_abs()),
        lives,
    }))
}

fn keep_probation(
    connection: &Connection,
    model: &ModelName,
    row: &ProbationRow,
) -> Result<(), StateError> {
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT OR REPLACE INTO probations (model, bundle, standing, provider, reference_us, \
         lived_s, open, well, starts, crashes, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            model.as_str(),
            row.bundle.to_string(),
            row.standing.as_str(),
            row.provider,
            row.reference.map(micros),
            i64::try_from(row.lived.as_secs()).unwrap_or(i64::MAX),
            row.lives.open,
            row.lives.well,
            row.lives.starts,
            row.lives.crashes,
            row.lives.boot,
        ],
    )?;
    Ok(())
}

fn signed(target: Target) -> i64 {
    i64::try_from(target.version.get()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::{ContentHash, Version};

    fn target(n: u64) -> Target {
        Target { version: Version::new(n).unwrap(), bundle: ContentHash::of(&n.to_le_bytes()) }
    }

    fn row(n: u64, standing: Standing) -> ProbationRow {
        ProbationRow {
            bundle: target(n).bundle,
            standing,
            provider: "cpu".into(),
            reference: Some(Duration::from_micros(1500)),
            lived: Duration::from_secs(7),
            lives: Lives::begin("boot").start("boot", false),
        }
    }

    fn entry(n: u64) -> Quarantined {
        Quarantined {
            model: model(),
            version: n,
            bundle: target(n).bundle,
            reason: "slow".into(),
            agent: "1".into(),
            runtime: "1".into(),
            since_s: 7,
        }
    }

    fn model() -> ModelName {
        "m".parse().unwrap()
    }

    /// The database after it was closed and opened again.
    struct Shelf(tempfile::TempDir);

    impl Shelf {
        fn open(&self) -> State {
            State::open(self.0.path()).unwrap()
        }

        fn slots(&self) -> (Option<u64>, Option<u64>) {
            let rows = self.open().active().unwrap();
            let version = |target: Target| target.version.get();
            let row = rows.first();
            (row.map(|row| version(row.active)), row.and_then(|row| row.previous.map(version)))
        }
    }

    #[test]
    fn the_version_before_is_the_last_that_was_trusted() {
        let shelf = Shelf(tempfile::tempdir().unwrap());
        let switch = |n: u64| {
            let state = shelf.open();
            state.stage(&model(), target(n)).unwrap();
            let gone = state.switch(&model(), target(n), &row(n, Standing::Trial)).unwrap();
            assert_eq!(state.candidate(&model()).unwrap(), None);
            gone.map(|target| target.version.get())
        };
        assert_eq!((switch(1), shelf.slots()), (None, (Some(1), None)));
        assert_eq!((switch(2), shelf.slots()), (None, (Some(2), Some(1))), "on trial, but all");
        assert_eq!((switch(3), shelf.slots()), (Some(2), (Some(3), Some(1))), "2 never passed");
        shelf.open().keep_probation(&model(), &row(3, Standing::Soak)).unwrap();
        assert_eq!((switch(4), shelf.slots()), (Some(1), (Some(4), Some(3))));
        assert_eq!(shelf.open().probation(&model()).unwrap(), Some(row(4, Standing::Trial)));

        assert_eq!(shelf.open().roll_back(&model(), &entry(4)).unwrap(), Some(target(3)));
        assert_eq!(shelf.slots(), (Some(3), None));
        assert_eq!(shelf.open().quarantine().unwrap(), [entry(4)]);
        assert_eq!(shelf.open().probation(&model()).unwrap(), None);
        assert_eq!(shelf.open().roll_back(&model(), &entry(3)).unwrap(), None);
        assert_eq!(shelf.slots(), (None, None), "better none than one that does harm");
    }

    #[test]
    fn what_is_in_quarantine_is_nothing_to_go_back_to() {
        let shelf = Shelf(tempfile::tempdir().unwrap());
        for n in 1..=2 {
            shelf.open().switch(&model(), target(n), &row(n, Standing::Trial)).unwrap();
        }
        assert_eq!(shelf.slots(), (Some(2), Some(1)));
        shelf.open().put_into_quarantine(&entry(1)).unwrap(); // as it failed when it was wanted again
        assert_eq!(shelf.slots(), (Some(2), None));
    }

    #[test]
    fn a_candidate_counts_what_it_began_and_did_not_end() {
        let shelf = Shelf(tempfile::tempdir().unwrap());
        shelf.open().stage(&model(), target(2)).unwrap();
        for begun in 1..=2 {
            assert_eq!(shelf.open().candidate_begins(&model()).unwrap(), begun);
        }
        shelf.open().stage(&model(), target(2)).unwrap();
        assert_eq!(shelf.open().candidate(&model()).unwrap(), Some((target(2), 2)), "the same");
        assert_eq!(shelf.open().candidates().unwrap(), [(model(), target(2))]);
        shelf.open().candidate_ended(&model()).unwrap();
        assert_eq!(shelf.open().candidate_begins(&model()).unwrap(), 1);
        shelf.open().stage(&model(), target(3)).unwrap();
        assert_eq!(shelf.open().candidate(&model()).unwrap(), Some((target(3), 0)));
        shelf.open().unstage(&model()).unwrap();
        assert_eq!(shelf.open().candidate(&model()).unwrap(), None);
    }

    #[test]
    fn an_end_in_order_is_nobodys_fault() {
        let shelf = Shelf(tempfile::tempdir().unwrap());
        shelf.open().stage(&model(), target(2)).unwrap();
        shelf.open().candidate_begins(&model()).unwrap();
        let on_trial = row(1, Standing::Trial);
        assert_eq!(on_trial.lives.starts, 1);
        shelf.open().keep_probation(&model(), &on_trial).unwrap();
        shelf.open().ends_in_order().unwrap();
        let kept = shelf.open().probation(&model()).unwrap().unwrap();
        assert_eq!(kept.lives, on_trial.lives.ended_well());
        assert_eq!(shelf.open().candidate(&model()).unwrap(), Some((target(2), 0)));
    }
}
