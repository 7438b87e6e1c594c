//! What agents of released versions have left on devices opens today, and nothing of it is lost.

use super::{Programs, State};
use edge::budget::SavedBucket;
use protocol::id::ContentHash;
use rusqlite::Connection;

/// The database of each released version, with a row in every table.
const RELEASED: [(&str, &str); 1] = [("0.1", include_str!("released/0.1.sql"))];

fn check(version: &str, state: &State) {
    let [one, two] = ["one", "two"].map(|name| ContentHash::of(name.as_bytes()));
    let active = state.active().unwrap();
    let row = &active[0];
    let versions = (row.active.version.get(), row.previous.map(|p| p.version.get()));
    assert_eq!((active.len(), versions), (1, (2, Some(1))), "{version}");
    assert_eq!((row.active.bundle, row.previous.map(|p| p.bundle)), (two, Some(one)));
    let budget = state.budget().unwrap().unwrap();
    assert_eq!((budget.calls, budget.at_s), (SavedBucket { level: 7.25, lease: 1.5 }, 9));
    let programs = Programs { agent: "0.1.0".into(), runtime: "1.31".into() };
    assert_eq!(state.proof(two, &programs).unwrap(), Some("{}".into()));
    let quarantined = &state.quarantine().unwrap()[0];
    assert_eq!((quarantined.bundle, &*quarantined.reason), (one, "it crashed"));
    assert_eq!(state.trial_begins(one).unwrap(), 3, "two trials were begun before");
    assert_eq!(state.quick_check().unwrap(), "ok");
}

#[test]
fn the_state_of_each_released_version_opens_and_has_kept_its_rows() {
    for (version, sql) in RELEASED {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let looked = State::inspect(folder.path()).unwrap();
        assert_eq!(looked.active().unwrap().len(), 1, "{version}, for looking only");
        drop(looked);
        check(version, &State::open(folder.path()).unwrap());
        drop(State::open(folder.path()).unwrap()); // and again
    }
}

/// A new program of the agent opens this database before it has shown that it is well, and where it gives way the
/// one before opens it again. So what a released program knows stays as it is: what is new has tables of its own.
#[test]
fn a_released_program_finds_its_tables_as_it_left_them() {
    for (version, sql) in RELEASED {
        let folder = tempfile::tempdir().unwrap();
        let theirs = Connection::open(folder.path().join("theirs.db")).unwrap();
        theirs.execute_batch(sql).unwrap();
        drop(State::open(folder.path()).unwrap());
        let ours = Connection::open(folder.path().join("state.db")).unwrap();
        let number = |of: &Connection| -> i64 {
            of.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
        };
        assert_eq!(number(&ours), number(&theirs), "{version} refuses a later number");
        for (table, columns) in tables(&theirs) {
            assert_eq!(tables(&ours).get(&table), Some(&columns), "{table} as {version} knows it");
        }
    }
}

/// The columns of each table, with all that is said of them.
fn tables(connection: &Connection) -> std::collections::BTreeMap<String, Vec<String>> {
    let sql = "SELECT t.name, c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk
               FROM sqlite_schema t JOIN pragma_table_info(t.name) c
               WHERE t.type = 'table' ORDER BY t.name, c.cid";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut tables = std::collections::BTreeMap::<String, Vec<String>>::new();
    for row in rows {
        let (table, column): (String, String) = row.unwrap();
        tables.entry(table).or_default().push(column);
    }
    tables
}
