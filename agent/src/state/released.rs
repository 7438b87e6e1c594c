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
