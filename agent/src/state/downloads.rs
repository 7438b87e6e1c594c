//! What was downloaded in this day and this month, where that is limited.

use super::offload::json;
use super::{State, StateError};
use edge::download::Spent;

/// Beside the schema's own, so that it can be left out by an older program.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS downloads (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    spent TEXT NOT NULL
) STRICT;
";

impl State {
    /// What was spent.
    pub(crate) fn downloads(&self) -> Result<Option<Spent>, StateError> {
        self.text("SELECT spent FROM downloads WHERE ?1 IS NOT NULL", "1")
    }

    /// Writes it down.
    pub(crate) fn keep_downloads(&self, spent: &Spent) -> Result<(), StateError> {
        let sql = "INSERT OR REPLACE INTO downloads (id, spent) VALUES (1, ?1)";
        self.connection().execute(sql, [json(spent)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.downloads().unwrap(), None);
        let spent = Spent { day: 20_000, month: 24_000, day_bytes: 7, month_bytes: u64::MAX };
        state.keep_downloads(&spent).unwrap();
        drop(state);
        assert_eq!(State::open(folder.path()).unwrap().downloads().unwrap(), Some(spent));
    }
}
