//! Backups hold everything that a server is.

use outrigger_cloud::data_dir::KEPT;
use protocol::id::Variant;

use crate::support::{MODEL, bundle, start};

/// What a start makes anew.
const ANEW: [&str; 8] =
    ["lock", "listening", "bundles", "deltas", "incoming", "node", "cloud.db-wal", "cloud.db-shm"];
/// What is in no backup, so that what is deleted is gone.
const LEFT_OUT: [&str; 1] = ["telemetry"];

/// Who adds something to the folder decides whether it goes into backups.
#[test]
fn nothing_in_the_folder_is_neither_backed_up_nor_made_anew() {
    let cloud = start();
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let known = |name: &str| name == "cloud.db" || KEPT.contains(&name)
        || ANEW.contains(&name)
        || LEFT_OUT.contains(&name);
    for entry in std::fs::read_dir(cloud.folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known(&name), "{name}: is it kept or made anew?");
    }
}
