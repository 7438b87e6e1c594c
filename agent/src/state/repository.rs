//! What the device trusts of the fleet's repository: the newest verified file of each role, which list of
//! the director it saw last, and which bundles were named by both. A restart must not make it forget
//! any of that, or an older state could be served to it as the newest.

use super::{State, StateError};
use protocol::id::ContentHash;
use protocol::tuf::metadata::ROOT;
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::BTreeMap;

/// Beside the schema's own, as the other tables that came later.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS repository (
    role TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS repository_seen (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    enrolment TEXT NOT NULL,
    directed INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS admitted (
    bundle TEXT PRIMARY KEY
) STRICT;
";

impl State {
    /// Begins with what enrolment said. Under the same enrolment nothing changes; a new one, in another
    /// fleet or with another root, begins anew.
    pub(crate) fn enter_repository(
        &self,
        ca_hash: ContentHash,
        root: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let root_hash = root.map(|root| ContentHash::of(root).to_string());
        let enrolment = format!("{ca_hash} {}", root_hash.unwrap_or_default());
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let sql = "SELECT enrolment FROM repository_seen";
        let known: Option<String> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
        if known.as_ref() == Some(&enrolment) {
            return Ok(());
        }
        transaction.execute("DELETE FROM repository", [])?;
        transaction
            .execute("INSERT OR REPLACE INTO repository_seen VALUES (1, ?1, 0)", [enrolment])?;
        if let Some(root) = root {
            adopt(&transaction, root)?;
        }
        Ok(transaction.commit()?)
    }

    /// Believes a repository from now on. What is active was signed as things were until now, and stays.
    pub(crate) fn adopt_root(&self, root: &[u8]) -> Result<(), StateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        adopt(&transaction, root)?;
        Ok(transaction.commit()?)
    }

    /// The newest verified file of each role; none before a root was adopted.
    pub(crate) fn metadata(&self) -> Result<BTreeMap<String, Vec<u8>>, StateError> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT role, bytes FROM repository")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Whether a root was adopted.
    pub(crate) fn has_root(&self) -> Result<bool, StateError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM repository WHERE role = ?1)";
        Ok(self.connection().query_row(sql, [ROOT], |row| row.get(0))?)
    }

    /// Keeps a verified file in the place of the one before.
    pub(crate) fn keep_metadata(&self, role: &str, bytes: &[u8]) -> Result<(), StateError> {
        let sql = "INSERT OR REPLACE INTO repository VALUES (?1, ?2)";
        self.connection().execute(sql, params![role, bytes])?;
        Ok(())
    }

    /// The version of the director's list that was seen last.
    pub(crate) fn directed_seen(&self) -> Result<u64, StateError> {
        let sql = "SELECT directed FROM repository_seen";
        let seen: Option<i64> =
            self.connection().query_row(sql, [], |row| row.get(0)).optional()?;
        Ok(u64::try_from(seen.unwrap_or(0)).unwrap_or(0))
    }

    /// A bundle was named by targets and, in this version of its list, by the director.
    pub(crate) fn admit(&self, bundle: ContentHash, directed: u64) -> Result<(), StateError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let seen = i64::try_from(directed).unwrap_or(i64::MAX);
        transaction.execute("UPDATE repository_seen SET directed = max(directed, ?1)", [seen])?;
        let sql = "INSERT OR IGNORE INTO admitted VALUES (?1)";
        transaction.execute(sql, [bundle.to_string()])?;
        Ok(transaction.commit()?)
    }

    /// Whether a bundle was admitted.
    pub(crate) fn is_admitted(&self, bundle: ContentHash) -> Result<bool, StateError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM admitted WHERE bundle = ?1)";
        Ok(self.connection().query_row(sql, [bundle.to_string()], |row| row.get(0))?)
    }
}

fn adopt(transaction: &Transaction<'_>, root: &[u8]) -> rusqlite::Result<()> {
    transaction
        .execute("INSERT OR REPLACE INTO repository VALUES (?1, ?2)", params![ROOT, root])?;
    transaction.execute(
        "INSERT OR IGNORE INTO admitted SELECT bundle FROM active
         UNION SELECT previous_bundle FROM active WHERE previous_bundle IS NOT NULL",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge::update::Target;
    use protocol::id::Version;

    #[test]
    fn an_adopted_root_stays_and_what_was_active_is_admitted() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, other) = (ContentHash::of(b"ca"), ContentHash::of(b"other"));
        let [active, unknown] = [ContentHash::of(b"active"), ContentHash::of(b"unknown")];
        let state = State::open(folder.path()).unwrap();
        let target = Target { version: Version::FIRST, bundle: active };
        state.activate(&"m".parse().unwrap(), target).unwrap();
        state.enter_repository(ca, None).unwrap();
        assert!(!state.has_root().unwrap());
        state.adopt_root(b"root").unwrap();
        state.admit(active, 7).unwrap();
        state.admit(active, 5).unwrap();
        drop(state);

        let state = State::open(folder.path()).unwrap();
        state.enter_repository(ca, None).unwrap();
        assert!(state.has_root().unwrap());
        assert_eq!(state.directed_seen().unwrap(), 7);
        assert!(state.is_admitted(active).unwrap() && !state.is_admitted(unknown).unwrap());

        state.enter_repository(other, None).unwrap(); // another fleet
        assert!(!state.has_root().unwrap());
        assert_eq!(state.directed_seen().unwrap(), 0);
        state.enter_repository(other, Some(b"its root")).unwrap();
        assert_eq!(state.metadata().unwrap()[ROOT], b"its root");
    }
}
