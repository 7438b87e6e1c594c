//! What was found out about a bundle on this machine: which execution provider runs it, and how much
//! memory it takes. It is only remembered, never needed: what is lost is found out again.

use super::{State, StateError};
use models::providers::Choice;
use protocol::id::ContentHash;
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeSet;

/// The table stands beside the schema's own, so that it can be left out by an older program.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS remembered (
    bundle TEXT PRIMARY KEY,
    conditions TEXT NOT NULL,
    choice TEXT NOT NULL,
    private_bytes INTEGER NOT NULL
) STRICT;
";

/// What is known of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remembered {
    /// Under which it was found out: library, machine, order of providers, options.
    pub(crate) conditions: String,
    pub(crate) choice: Choice,
    /// The most memory that the model was seen to take.
    pub(crate) private_bytes: u64,
}

impl State {
    /// What is known of a bundle; nothing where the row does not read any more.
    pub(crate) fn remembered(&self, bundle: ContentHash) -> Result<Option<Remembered>, StateError> {
        let row: Option<(String, String, i64)> = self
            .connection()
            .query_row(
                "SELECT conditions, choice, private_bytes FROM remembered WHERE bundle = ?1",
                [bundle.to_string()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?;
        Ok(row.and_then(|(conditions, choice, bytes)| {
            let choice = serde_json::from_str(&choice).ok()?;
            Some(Remembered { conditions, choice, private_bytes: u64::try_from(bytes).ok()? })
        }))
    }

    /// Remembers what is known of a bundle instead of what was known before.
    pub(crate) fn remember(
        &self,
        bundle: ContentHash,
        known: &Remembered,
    ) -> Result<(), StateError> {
        let choice = serde_json::to_string(&known.choice).expect("a choice is always JSON");
        let bytes = i64::try_from(known.private_bytes).unwrap_or(i64::MAX);
        self.connection().execute(
            "INSERT OR REPLACE INTO remembered (bundle, conditions, choice, private_bytes)
             VALUES (?1, ?2, ?3, ?4)",
            params![bundle.to_string(), known.conditions, choice, bytes],
        )?;
        Ok(())
    }

    /// Forgets all bundles but these.
    pub(crate) fn forget_all_but(&self, keep: &BTreeSet<ContentHash>) -> Result<(), StateError> {
        let connection = self.connection();
        let keep: BTreeSet<String> = keep.iter().map(ToString::to_string).collect();
        for table in ["remembered", "audits"] {
            let mut statement = connection.prepare(&format!("SELECT bundle FROM {table}"))?;
            let known: Vec<String> =
                statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for bundle in known.iter().filter(|bundle| !keep.contains(*bundle)) {
                let sql = format!("DELETE FROM {table} WHERE bundle = ?1");
                connection.execute(&sql, [bundle])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::providers::{PassedOver, Provider, Reason};

    #[test]
    fn what_was_found_out_is_kept_until_the_bundle_goes() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let [stays, goes] = ["stays", "goes"].map(|name| ContentHash::of(name.as_bytes()));
        let reason = Reason::DoesNotOpen { message: "no device".into() };
        let choice = Choice::cpu(vec![PassedOver { provider: Provider::Cuda, reason }]);
        let mut known = Remembered { conditions: "here".into(), choice, private_bytes: 1 };
        state.remember(stays, &known).unwrap();
        known.private_bytes = 2;
        state.remember(stays, &known).unwrap();
        state.remember(goes, &known).unwrap();
        state.forget_all_but(&[stays].into()).unwrap();
        drop(state);
        let state = State::inspect(folder.path()).unwrap();
        assert_eq!(state.remembered(stays).unwrap(), Some(known));
        assert_eq!(state.remembered(goes).unwrap(), None);
    }
}
