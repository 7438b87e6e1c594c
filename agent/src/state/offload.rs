//! What placement must remember over a restart: what is left of the day's budget, and what was found
//! out about accepted answers.

use super::{State, StateError};
use edge::audit::Findings;
use edge::budget::SavedBudget;
use protocol::id::ContentHash;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Beside the schema's own, so that they can be left out by an older program.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS budget (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    saved TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audits (
    bundle TEXT PRIMARY KEY,
    findings TEXT NOT NULL
) STRICT;
";

impl State {
    /// What was left of the budget.
    pub(crate) fn budget(&self) -> Result<Option<SavedBudget>, StateError> {
        self.text("SELECT saved FROM budget WHERE ?1 IS NOT NULL", "1")
    }

    /// Writes down what is left of the budget.
    pub(crate) fn keep_budget(&self, saved: &SavedBudget) -> Result<(), StateError> {
        let sql = "INSERT OR REPLACE INTO budget (id, saved) VALUES (1, ?1)";
        self.connection().execute(sql, [json(saved)])?;
        Ok(())
    }

    /// What was found out about a bundle's accepted answers.
    pub(crate) fn findings(&self, bundle: ContentHash) -> Result<Option<Findings>, StateError> {
        self.text("SELECT findings FROM audits WHERE bundle = ?1", &bundle.to_string())
    }

    /// Writes it down.
    pub(crate) fn keep_findings(
        &self,
        bundle: ContentHash,
        findings: &Findings,
    ) -> Result<(), StateError> {
        let sql = "INSERT OR REPLACE INTO audits (bundle, findings) VALUES (?1, ?2)";
        self.connection().execute(sql, params![bundle.to_string(), json(findings)])?;
        Ok(())
    }

    pub(super) fn text<T: DeserializeOwned>(
        &self,
        sql: &str,
        key: &str,
    ) -> Result<Option<T>, StateError> {
        let text: Option<String> =
            self.connection().query_row(sql, [key], |row| row.get(0)).optional()?;
        let Some(text) = text else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text).map_err(|_| StateError::Damaged(text))?))
    }
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain numbers are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge::audit::{Audit, AuditPolicy};
    use edge::budget::SavedBucket;

    #[test]
    fn both_are_kept_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.budget().unwrap(), None);
        let bucket = |level| SavedBucket { level, lease: 1.5 };
        let saved = SavedBudget { calls: bucket(7.25), bytes: bucket(0.0), at_s: 9 };
        state.keep_budget(&saved).unwrap();
        let [stays, goes] = ["stays", "goes"].map(|name| ContentHash::of(name.as_bytes()));
        let mut audit = Audit::new(&AuditPolicy::default(), None, None);
        assert_eq!(audit.checked(0, 1.0), None);
        for bundle in [stays, goes] {
            state.keep_findings(bundle, audit.findings()).unwrap();
        }
        state.forget_all_but(&[stays].into()).unwrap();
        drop(state);
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.budget().unwrap(), Some(saved));
        let found = state.findings(stays).unwrap().unwrap();
        assert_eq!((found.checked, found.test.observed()), (1, 1));
        // JSON may cost the last bit.
        assert!((found.test.evidence() - audit.findings().test.evidence()).abs() < 1e-9);
        assert_eq!(state.findings(goes).unwrap(), None);
    }
}
