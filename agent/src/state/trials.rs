//! What trying models out has shown: which bundles have proven themselves, which are quarantined,
//! and which trials began and never ended.
//!
//! Proof and quarantine hold for one version of the agent and one of the runtime: what crashed the
//! one may run on the next, and the other way round.

use super::{State, StateError, parse_target};
use edge::update::Target;
use protocol::id::{ContentHash, ModelName};
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;

/// The programs that a trial was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) agent: String,
    pub(crate) runtime: String,
}

/// A bundle that is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Quarantined {
    pub(crate) model: ModelName,
    pub(crate) version: u64,
    pub(crate) bundle: ContentHash,
    /// What it did, in words.
    pub(crate) reason: String,
    pub(crate) agent: String,
    pub(crate) runtime: String,
    /// Unix seconds.
    pub(crate) since_s: i64,
}

/// Beside the first table, and not a new version of the database: an agent that is older than these
/// goes on working with it.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS proven (
    bundle TEXT PRIMARY KEY,
    agent TEXT NOT NULL,
    runtime TEXT NOT NULL,
    proof TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS quarantine (
    bundle TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    agent TEXT NOT NULL,
    runtime TEXT NOT NULL,
    since_s INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS trials (
    bundle TEXT PRIMARY KEY,
    begun INTEGER NOT NULL
) STRICT;
";

impl State {
    /// Forgets what was shown with other programs, and the proofs of bundles that are gone.
    pub(crate) fn forget_trials(
        &self,
        programs: &Programs,
        keep: &[Target],
    ) -> Result<(), StateError> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        for table in ["proven", "quarantine"] {
            change.execute(
                &format!("DELETE FROM {table} WHERE agent <> ?1 OR runtime <> ?2"),
                params![programs.agent, programs.runtime],
            )?;
        }
        let mut statement = change.prepare("SELECT bundle FROM proven")?;
        let proven: Vec<String> =
            statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        drop(statement);
        let kept = |bundle: &String| keep.iter().any(|t| t.bundle.to_string() == *bundle);
        for bundle in proven.iter().filter(|bundle| !kept(bundle)) {
            change.execute("DELETE FROM proven WHERE bundle = ?1", [bundle])?;
        }
        Ok(change.commit()?)
    }

    /// The proof of a bundle, as JSON, if it was given with these programs.
    pub(crate) fn proof(
        &self,
        bundle: ContentHash,
        programs: &Programs,
    ) -> Result<Option<String>, StateError> {
        let query = "SELECT proof FROM proven WHERE bundle = ?1 AND agent = ?2 AND runtime = ?3";
        let parameters = params![bundle.to_string(), programs.agent, programs.runtime];
        Ok(self.connection().query_row(query, parameters, |row| row.get(0)).optional()?)
    }

    /// The bundle has proven itself.
    pub(crate) fn keep_proof(
        &self,
        bundle: ContentHash,
        programs: &Programs,
        proof: &str,
    ) -> Result<(), StateError> {
        self.connection().execute(
            "INSERT OR REPLACE INTO proven (bundle, agent, runtime, proof) VALUES (?1, ?2, ?3, ?4)",
            params![bundle.to_string(), programs.agent, programs.runtime, proof],
        )?;
        Ok(())
    }

    /// Everything in quarantine.
    pub(crate) fn quarantine(&self) -> Result<Vec<Quarantined>, StateError> {
        let connection = self.connection();
        let there = "SELECT count(*) FROM sqlite_master WHERE name = 'quarantine'";
        if connection.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Vec::new()); // only looked at, and not opened by this agent yet
        }
        let mut statement = connection.prepare(
            "SELECT model, version, bundle, reason, agent, runtime, since_s FROM quarantine
             ORDER BY since_s, bundle",
        )?;
        let rows = statement.query_map([], |row| {
            let named: (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((named, [row.get(3)?, row.get(4)?, row.get(5)?], row.get(6)?))
        })?;
        rows.map(|row| {
            let ((model, version, bundle), [reason, agent, runtime], since_s) = row?;
            let target = parse_target(version, &bundle)?;
            let model = model.parse().map_err(|_| StateError::Damaged(model))?;
            let (version, bundle) = (target.version.get(), target.bundle);
            Ok(Quarantined { model, version, bundle, reason, agent, runtime, since_s })
        })
        .collect()
    }

    /// Puts a bundle into quarantine. It has no proof any more, no trial under way, is no candidate, and is
    /// nothing to go back to.
    pub(crate) fn put_into_quarantine(&self, entry: &Quarantined) -> Result<(), StateError> {
        let mut connection = self.connection();
        let change = connection.transaction()?;
        insert_into_quarantine(&change, entry)?;
        Ok(change.commit()?)
    }

    /// Lets a bundle out; whether it was in.
    pub(crate) fn release(&self, bundle: ContentHash) -> Result<bool, StateError> {
        let bundle = bundle.to_string();
        let connection = self.connection();
        connection.execute("DELETE FROM trials WHERE bundle = ?1", [&bundle])?;
        Ok(connection.execute("DELETE FROM quarantine WHERE bundle = ?1", [&bundle])? > 0)
    }

    /// A trial begins: how many have begun since the last one that ended, with this one.
    pub(crate) fn trial_begins(&self, bundle: ContentHash) -> Result<i64, StateError> {
        Ok(self.connection().query_row(
            "INSERT INTO trials (bundle, begun) VALUES (?1, 1)
             ON CONFLICT (bundle) DO UPDATE SET begun = begun + 1 RETURNING begun",
            [bundle.to_string()],
            |row| row.get(0),
        )?)
    }

    /// The trial ended in a way that is understood.
    pub(crate) fn trial_ended(&self, bundle: ContentHash) -> Result<(), StateError> {
        self.connection().execute("DELETE FROM trials WHERE bundle = ?1", [bundle.to_string()])?;
        Ok(())
    }
}

/// The same within a larger change.
pub(super) fn insert_into_quarantine(
    change: &Transaction<'_>,
    entry: &Quarantined,
) -> Result<(), StateError> {
    let bundle = entry.bundle.to_string();
    for table in ["proven", "trials", "candidates"] {
        change.execute(&format!("DELETE FROM {table} WHERE bundle = ?1"), [&bundle])?;
    }
    change.execute(
        "UPDATE active SET previous_version = NULL, previous_bundle = NULL WHERE previous_bundle = ?1",
        [&bundle],
    )?;
    change.execute(
        "INSERT OR REPLACE INTO quarantine
         (bundle, model, version, reason, agent, runtime, since_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            bundle,
            entry.model.as_str(),
            i64::try_from(entry.version).unwrap_or(i64::MAX),
            entry.reason,
            entry.agent,
            entry.runtime,
            entry.since_s
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::Version;

    fn programs(runtime: &str) -> Programs {
        Programs { agent: "1".into(), runtime: runtime.into() }
    }

    fn target(n: u64) -> Target {
        Target { version: Version::new(n).unwrap(), bundle: ContentHash::of(&n.to_le_bytes()) }
    }

    fn entry(n: u64, programs: &Programs) -> Quarantined {
        Quarantined {
            model: "m".parse().unwrap(),
            version: n,
            bundle: target(n).bundle,
            reason: "it crashed".into(),
            agent: programs.agent.clone(),
            runtime: programs.runtime.clone(),
            since_s: 7,
        }
    }

    #[test]
    fn quarantine_and_proof_survive_reopening_and_end_with_their_programs() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (programs("1.31"), programs("1.32"));
        let state = State::open(folder.path()).unwrap();
        state.keep_proof(target(1).bundle, &old, "{}").unwrap();
        state.keep_proof(target(2).bundle, &old, "{}").unwrap();
        state.put_into_quarantine(&entry(2, &old)).unwrap();
        drop(state);

        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.quarantine().unwrap(), [entry(2, &old)]);
        assert_eq!(State::inspect(folder.path()).unwrap().quarantine().unwrap().len(), 1);
        assert_eq!(state.proof(target(1).bundle, &old).unwrap(), Some("{}".into()));
        assert_eq!(state.proof(target(1).bundle, &new).unwrap(), None);
        assert_eq!(state.proof(target(2).bundle, &old).unwrap(), None, "a crash ends the proof");

        state.forget_trials(&old, &[target(1)]).unwrap();
        assert_eq!(state.quarantine().unwrap().len(), 1);
        assert_eq!(state.proof(target(1).bundle, &old).unwrap(), Some("{}".into()));
        state.forget_trials(&old, &[]).unwrap();
        assert_eq!(state.proof(target(1).bundle, &old).unwrap(), None, "the bundle is gone");
        state.forget_trials(&new, &[]).unwrap();
        assert_eq!(state.quarantine().unwrap(), [], "the next runtime may try again");
    }

    #[test]
    fn a_release_is_for_one_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        for n in 1..=2 {
            state.put_into_quarantine(&entry(n, &programs("r"))).unwrap();
        }
        assert!(state.release(target(1).bundle).unwrap());
        assert!(!state.release(target(1).bundle).unwrap());
        assert_eq!(state.quarantine().unwrap(), [entry(2, &programs("r"))]);
    }

    #[test]
    fn trials_that_never_end_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        for n in 1..=3 {
            let state = State::open(folder.path()).unwrap();
            assert_eq!(state.trial_begins(target(1).bundle).unwrap(), n);
        }
        let state = State::open(folder.path()).unwrap();
        state.trial_ended(target(1).bundle).unwrap();
        assert_eq!(state.trial_begins(target(1).bundle).unwrap(), 1);
    }
}
