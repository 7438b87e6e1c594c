//! A small repository, and what its client does with it; the public suite and the named attacks are in
//! `tests/`.

use serde_json::json;
use std::collections::BTreeMap;

use super::client::{Answer, Step, Updater};
use super::metadata::*;
use super::*;
use crate::manifest::SigningKey;

const NOW_S: i64 = 1_800_000_000;
const LATER_S: i64 = NOW_S + 1000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn role(seeds: &[u8], threshold: u64) -> Role {
    Role { keyids: seeds.iter().map(|seed| key(*seed).tuf_key().id()).collect(), threshold }
}

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

fn put(files: &mut Files, name: &str, said: &impl Said, seeds: &[u8]) {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    let envelope = Envelope::signed_by(said, &keys).unwrap();
    files.insert(name.to_owned(), envelope.to_bytes());
}

/// Root's keys are 1 to 3, two of which must sign; targets' 4, snapshot's 5, timestamp's 6.
fn root(version: u64) -> Root {
    let roles = [(ROOT, role(&[1, 2, 3], 2)), (TARGETS, role(&[4], 1))];
    let online = [(SNAPSHOT, role(&[5], 1)), (TIMESTAMP, role(&[6], 1))];
    let named = |(name, role): (&str, Role)| (name.to_owned(), role);
    let known = (1..=6).map(|seed| key(seed).tuf_key());
    Root {
        head: Head::new(ROOT, version, LATER_S),
        consistent_snapshot: true,
        keys: known.map(|key| (key.id(), key)).collect(),
        roles: roles.into_iter().chain(online).map(named).collect(),
        other: BTreeMap::new(),
    }
}

fn repository(version: u64) -> Files {
    let mut files = Files::new();
    put(&mut files, "1.root.json", &root(1), &[1, 3]);
    publish(&mut files, version, &[("good", b"a file".as_slice())]);
    files
}

fn publish(files: &mut Files, version: u64, named: &[(&str, &[u8])]) {
    let mut targets = Targets::new(version, LATER_S);
    targets.targets = named.iter().map(|(p, bytes)| ((*p).to_owned(), Target::of(bytes))).collect();
    put(files, &format!("{version}.targets.json"), &targets, &[4]);
    let meta = [("targets.json".to_owned(), MetaFile::version(version))].into();
    let snapshot = Snapshot { head: Head::new(SNAPSHOT, version, LATER_S), meta };
    put(files, &format!("{version}.snapshot.json"), &snapshot, &[5]);
    let timestamp = Timestamp::new(version, LATER_S, MetaFile::version(version));
    put(files, "timestamp.json", &timestamp, &[6]);
}

/// Runs an updater until it is done; what it kept is in `stored` then, also where it failed.
fn drive(updater: &mut Updater, files: &Files, stored: &mut Files) -> Result<(), Refused> {
    loop {
        match updater.poll() {
            Step::Done => return Ok(()),
            Step::Keep(kept) => drop(stored.insert(kept.role, kept.bytes)),
            Step::Fetch(wanted) => {
                let file = files.get(&wanted.file_name());
                let answer = file.map_or(Answer::Absent, |bytes| Answer::Found(bytes.clone()));
                updater.handle(answer)?;
            }
        }
    }
}

fn refresh(files: &Files, stored: &mut Files, now_s: i64) -> Result<Updater, Refused> {
    let mut updater = Updater::begin(stored.clone(), now_s)?;
    drive(&mut updater, files, stored)?;
    Ok(updater)
}

fn fresh(files: &Files) -> Files {
    [(ROOT.to_owned(), files["1.root.json"].clone())].into()
}

#[test]
fn canonical_text() {
    let value = json!({ "b": [1, -2, true, null], "a": "\"\\\n\u{e9}", "é": {} , "A": 18_446_744_073_709_551_615_u64});
    let text = canonical::to_text(&value).unwrap();
    assert_eq!(
        text,
        "{\"A\":18446744073709551615,\"a\":\"\\\"\\\\\n\u{e9}\",\"b\":[1,-2,true,null],\"é\":{}}"
    );
    assert!(canonical::to_text(&json!([1.5])).is_err());
}

#[test]
fn a_target_is_found_and_checked() {
    let files = repository(1);
    let mut stored = fresh(&files);
    let mut updater = refresh(&files, &mut stored, NOW_S).unwrap();
    updater.find("good").unwrap();
    let target = updater.found().unwrap().clone();
    assert_eq!(target.check("good", b"a file"), Ok(()));
    assert!(matches!(target.check("good", b"a fils"), Err(Refused::WrongHash(_))));
    assert!(matches!(target.check("good", b"a"), Err(Refused::WrongLength { .. })));
    updater.find("bad").unwrap();
    assert_eq!(updater.found(), None);
    assert_eq!(stored.len(), 4);
}

#[test]
fn nobody_there_is_not_nothing_newer() {
    let files = repository(1);
    let mut updater = Updater::begin(fresh(&files), NOW_S).unwrap();
    let Step::Fetch(wanted) = updater.poll() else { panic!("it wants a root") };
    assert_eq!(wanted.file_name(), "2.root.json");
    let refused = updater.handle(Answer::Unreachable).unwrap_err();
    assert_eq!(refused, Refused::Unreachable("root".to_owned()));
    assert!(refused.is_passing());
    assert_eq!(updater.poll(), Step::Done);
    assert!(!updater.is_current());
    assert!(updater.find("good").is_err());
}

#[test]
fn one_of_two_keys_is_not_enough_and_one_key_is_not_two() {
    let mut files = repository(1);
    put(&mut files, "2.root.json", &root(2), &[2]);
    let refused = refresh(&files, &mut fresh(&files), NOW_S).unwrap_err();
    assert_eq!(refused, Refused::Unsigned { role: "root".into(), valid: 1, threshold: 2 });

    // The same key under a second name: its signature is valid, and still the same key's.
    let mut twice = root(2);
    let mut again = key(2).tuf_key();
    again.other.insert("note".to_owned(), json!("again"));
    twice.roles.get_mut(ROOT).unwrap().keyids = vec![key(2).tuf_key().id(), again.id()];
    twice.keys.insert(again.id(), again.clone());
    let mut envelope = Envelope::signed_by(&twice, &[key(1), key(2)]).unwrap();
    let sig = envelope.signatures[1].sig.clone();
    envelope.signatures.push(Signature { keyid: again.id(), sig });
    files.insert("2.root.json".to_owned(), envelope.to_bytes());
    let refused = refresh(&files, &mut fresh(&files), NOW_S).unwrap_err();
    assert_eq!(refused, Refused::Unsigned { role: "root".into(), valid: 1, threshold: 2 });
}

#[test]
fn what_was_seen_is_not_taken_back_but_by_a_root_with_other_keys() {
    let files = repository(7);
    let mut stored = fresh(&files);
    refresh(&files, &mut stored, NOW_S).unwrap();
    let older = repository(6);
    let refused = refresh(&older, &mut stored, NOW_S).unwrap_err();
    assert_eq!(refused, Refused::Rollback { role: "timestamp".into(), trusted: 7, offered: 6 });

    let mut recovered = older;
    let mut rotated = root(2);
    let (eight, nine) = (key(8).tuf_key(), key(9).tuf_key());
    rotated.roles.insert(SNAPSHOT.to_owned(), role(&[8], 1));
    rotated.roles.insert(TIMESTAMP.to_owned(), role(&[9], 1));
    rotated.keys.extend([(eight.id(), eight), (nine.id(), nine)]);
    put(&mut recovered, "2.root.json", &rotated, &[1, 2]);
    let meta = [("targets.json".to_owned(), MetaFile::version(6))].into();
    let snapshot = Snapshot { head: Head::new(SNAPSHOT, 6, LATER_S), meta };
    put(&mut recovered, "6.snapshot.json", &snapshot, &[8]);
    let timestamp = Timestamp::new(1, LATER_S, MetaFile::version(6));
    put(&mut recovered, "timestamp.json", &timestamp, &[9]);
    let updater = refresh(&recovered, &mut stored, NOW_S).unwrap();
    assert_eq!(updater.targets().unwrap().head.version, 6);
}

#[test]
fn a_frozen_repository_expires() {
    let files = repository(1);
    let mut stored = fresh(&files);
    refresh(&files, &mut stored, NOW_S).unwrap();
    let refused = refresh(&files, &mut stored, LATER_S).unwrap_err();
    assert!(matches!(refused, Refused::Expired { role, .. } if role == "root"));
}

#[test]
fn every_flipped_byte_of_every_file_is_refused_or_changes_nothing() {
    let files = repository(1);
    let whole = refresh(&files, &mut fresh(&files), NOW_S).unwrap();
    let stored = fresh(&files);
    for (name, bytes) in &files {
        if name == "1.root.json" {
            continue;
        }
        for at in 0..bytes.len() {
            let mut flipped = files.clone();
            flipped.get_mut(name).unwrap()[at] ^= 1;
            // A flip beside what is signed (`sig` into `sif`, say) ends it too, or is not seen at all.
            if let Ok(updater) = refresh(&flipped, &mut stored.clone(), NOW_S) {
                assert_eq!(updater.targets(), whole.targets(), "{name} {at}");
            }
        }
    }
}
