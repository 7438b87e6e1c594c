//! A database of each older schema, with rows of its time in every table that holds what cannot be made
//! anew, opens today and has kept them.

use rusqlite::Connection;
use std::path::Path;

use super::super::{MIGRATIONS, SCHEMA};
use super::Store;
use protocol::id::ContentHash;

/// The beginning of the SHA-256 of each step: what has been released is never changed, for databases have gone through it.
const RELEASED: [&str; SCHEMA as usize] = [
    "626c88e670e31dbe",
    "4e715a9e8a09e760",
    "d377b4d5a4c93e6a",
    "b04a78a2ecc086dc",
    "ddbd5c6cafc482d4",
    "27c18317c16d8e9f",
    "913de1fbe8ffdae2",
    "d2ebbb22f2cb4460",
    "5922812b69461471",
    "4a5216d1d5ffcc64",
];

/// What a program of this schema has added.
fn rows(schema: usize) -> &'static str {
    match schema {
        1 => {
            "INSERT INTO api_keys VALUES ('k1', zeroblob(32), 'admin', 'first', 10);
             INSERT INTO signers VALUES ('s1', zeroblob(32), 'signer', 11);
             INSERT INTO enrolment_tokens VALUES ('t1', zeroblob(32), 'door', 12, 4000000000, NULL);
             INSERT INTO enrolment_tokens VALUES ('t2', zeroblob(32), 'gate', 13, 4000000000, KEY);
             INSERT INTO devices (id, key_hash, label, hostname, agent_version, enrolled_at_s, denied)
                 VALUES ('d-1', KEY, 'gate', 'box', '0.1.0', 14, 1);
             INSERT INTO bundles VALUES (KEY, 'fashion', 3, 'edge', x'7b7d', 's1', 7, 15);
             INSERT INTO bundle_files VALUES (KEY, 'model.onnx', KEY, 7);
             INSERT INTO assignments VALUES ('fashion', '', 3, 16);
             UPDATE desired_revision SET number = 17;
             INSERT INTO audit (at_s, actor, action, subject, detail) VALUES (18, 'a', 'b', 'c', 'd');"
        }
        2 => {
            "UPDATE api_keys SET models = 'fash*', last_used_s = 20;
             UPDATE devices SET tenant = 'shop';
             INSERT INTO tenants VALUES ('shop', 'fash*', 21);
             INSERT INTO version_policies VALUES ('fashion', 'latest 2');
             INSERT INTO usage VALUES (3600, 'shop', 'key k1', 'fashion', 1, 2, 3, 4, 5);"
        }
        3 => {
            "INSERT INTO nodes (id, key_hash, label, hostname, names, version, joined_at_s)
                 VALUES ('n-1', KEY, 'gpu', 'box', 'gpu.example', '0.1.0', 30);
             INSERT INTO node_tokens VALUES ('nt1', zeroblob(32), 'gpu', '', 31, 4000000000, KEY);"
        }
        4 => {
            "INSERT INTO measurements VALUES ('m1', 'd-1', x'7b7d', 40, 4000000000, NULL);
             INSERT INTO measured_files VALUES ('m1', KEY, 7);"
        }
        5 => {
            "INSERT INTO repository_files VALUES ('1.root.json', 'root', 1, x'7b7d', 50);
             INSERT INTO directed VALUES ('d-1', 2, x'7b7d');"
        }
        7 => {
            r#"INSERT INTO releases VALUES (KEY, '0.2.0', 'x86_64-unknown-linux-gnu',
                 CAST('{"release":"{}","key_id":"' || KEY || '","signature":""}' AS BLOB), KEY, 7, 70);
             INSERT INTO release_assignments VALUES ('', '0.2.0', 71);"#
        }
        8 => "INSERT INTO analytics_keys VALUES (3, x'7b7d', 60);",
        9 => {
            "INSERT INTO device_labels VALUES ('d-1', 'site', 'lyon');
             INSERT INTO device_groups VALUES ('canaries', 'site=lyon', 90);
             UPDATE enrolment_tokens SET labels = '{\"site\":\"lyon\"}' WHERE id = 't1';"
        }
        10 => {
            "INSERT INTO api_keys (id, digest, role, name, created_at_s, expires_at_s, person)
                 VALUES ('k2', zeroblob(32), 'operator', 'ada', 100, 200, 'https://id.example 7');"
        }
        _ => "",
    }
}

fn key() -> String {
    ContentHash::of(b"key").to_string()
}

/// A database that has been there since the first schema, as a program of this one has left it.
fn made_at(schema: usize, path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    for step in 1..=schema {
        connection.execute_batch(MIGRATIONS[step - 1]).unwrap();
        connection.execute_batch(&rows(step).replace("KEY", &format!("'{}'", key()))).unwrap();
    }
    connection.pragma_update(None, "user_version", i64::try_from(schema).unwrap()).unwrap();
}

/// What people and devices rely on, as this program reads it.
fn check(schema: usize, store: &Store) {
    let keys = store.api_keys().unwrap();
    assert_eq!((keys[0].record.name.as_str(), &keys[0].record.person), ("first", &None));
    if schema >= 10 {
        let person = keys[1].record.person.as_ref().map(ToString::to_string);
        assert_eq!(person.as_deref(), Some("https://id.example 7"));
    }
    assert_eq!(keys.len(), if schema < 10 { 1 } else { 2 });
    let devices = store.devices().unwrap();
    let tenant = if schema < 2 { "default" } else { "shop" };
    assert_eq!((devices[0].id.as_str(), devices[0].tenant.as_str()), ("d-1", tenant));
    assert!(devices[0].denied, "who was shut out stays so");
    let tokens = store.tokens().unwrap();
    let used: Vec<_> = tokens.iter().map(|t| (t.id.as_str(), t.uses, t.uses_max)).collect();
    assert_eq!(used, [("t2", 1, 1), ("t1", 0, 1)], "a used token is not good again");
    let files = "SELECT count(*) FROM bundle_files JOIN bundles USING (bundle)";
    let files: rusqlite::Result<u32> = store.read(|c| c.query_row(files, [], |row| row.get(0)));
    assert_eq!(files.unwrap(), 1);
    assert_eq!(store.revision().unwrap(), 17);
    assert_eq!(store.audit(10).unwrap()[0].action, "b");
    if schema >= 2 {
        assert_eq!(store.policies().unwrap().len(), 1);
        assert_eq!(store.tenants().unwrap().len(), 2);
    }
    if schema >= 5 {
        let kept = "SELECT version FROM directed JOIN devices ON device = id";
        let kept: rusqlite::Result<u32> = store.read(|c| c.query_row(kept, [], |row| row.get(0)));
        assert_eq!(kept.unwrap(), 2);
    }
    if schema >= 7 {
        let counts = (store.releases().unwrap().len(), store.release_assignments().unwrap().len());
        assert_eq!(counts, (1, 1));
    }
    if schema >= 9 {
        assert_eq!(store.labels().unwrap().len(), 1);
        assert_eq!(store.groups().unwrap()[0].query.to_string(), "site=lyon");
        assert_eq!(tokens[1].labels["site"], "lyon");
    }
    if schema >= 8 {
        assert_eq!(store.analytics_key().unwrap(), Some(b"{}".to_vec()));
    }
    if schema >= 3 {
        assert_eq!(store.nodes().unwrap()[0].names, ["gpu.example"]);
    }
}

#[test]
fn a_database_of_each_older_schema_opens_and_has_kept_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("fresh.db");
    drop(Store::open(&fresh).unwrap());
    for schema in 1..=SCHEMA as usize {
        let path = folder.path().join(format!("{schema}.db"));
        made_at(schema, &path);
        let store = Store::open(&path).unwrap();
        check(schema, &store);
        assert_eq!(store.quick_check().unwrap(), "ok");
        drop(store);
        assert_eq!(schema_of(&path), schema_of(&fresh), "schema {schema} ends where a new one is");
        drop(Store::open(&path).unwrap()); // and again
    }
}

/// Every table, index and trigger, and the number.
fn schema_of(path: &Path) -> (Vec<String>, u32) {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    let lines = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let number = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let broken: usize = connection
        .prepare("PRAGMA foreign_key_check")
        .and_then(|mut check| Ok(check.query_map([], |_| Ok(()))?.count()))
        .unwrap();
    assert_eq!(broken, 0, "a row that points nowhere");
    (lines, number)
}

#[test]
fn a_step_that_was_released_is_never_changed() {
    let hashes = MIGRATIONS.map(|sql| ContentHash::of(sql.as_bytes()).to_string()[..16].to_owned());
    assert_eq!(hashes, RELEASED);
}
