//! The named attacks on a repository, made by python-tuf, against the machine that devices have; and that
//! an honest repository of its making is accepted. The public suite is `cargo xtask prove tuf`.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use protocol::tuf::Refused;
use protocol::tuf::client::{Answer, Step, Updater};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Cases {
    now_s: i64,
    path: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    expected: String,
}

/// What a server gives of a file, of which no more than so much is taken.
fn read(path: &Path, max_bytes: u64) -> Answer {
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() as u64 > max_bytes => Answer::Endless,
        Ok(bytes) => Answer::Found(bytes),
        Err(_) => Answer::Absent,
    }
}

fn stored(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let role = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (role(&path), std::fs::read(&path).unwrap())).collect()
}

fn drive(updater: &mut Updater, metadata: &Path) -> Result<(), Refused> {
    loop {
        match updater.poll() {
            Step::Done => return Ok(()),
            Step::Keep(_) => {}
            Step::Fetch(wanted) => {
                updater.handle(read(&metadata.join(wanted.file_name()), wanted.max_bytes))?;
            }
        }
    }
}

/// Refreshes, searches and fetches one target, as an installation does.
fn install(folder: &Path, path: &str, now_s: i64) -> Result<Vec<u8>, Refused> {
    let metadata = folder.join("remote/metadata");
    let mut updater = Updater::begin(stored(&folder.join("stored")), now_s)?;
    drive(&mut updater, &metadata)?;
    updater.find(path)?;
    drive(&mut updater, &metadata)?;
    let target = updater.found().ok_or_else(|| Refused::NotNamed(path.to_owned()))?;
    let (parent, name) = path.rsplit_once('/').unwrap();
    let file = format!("remote/targets/{parent}/{}.{name}", target.hashes["sha256"]);
    match read(&folder.join(file), target.length) {
        Answer::Found(bytes) => target.check(path, &bytes).map(|()| bytes),
        Answer::Endless => {
            Err(Refused::TooLarge { what: path.to_owned(), max_bytes: target.length })
        }
        _ => Err(Refused::Absent(path.to_owned())),
    }
}

#[test]
fn named_attacks_are_refused_by_name() {
    let packages = ["tuf==7.0.0", "securesystemslib[crypto]==1.4.0"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    environment.run("tuf_attacks.py", &[folder.path().to_str().unwrap()]).unwrap();
    let cases = std::fs::read(folder.path().join("cases.json")).unwrap();
    let Cases { now_s, path, cases } = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() >= 25, "the generator lost cases: {}", cases.len());
    for Case { name, expected } in cases {
        let outcome = install(&folder.path().join(&name), &path, now_s);
        let outcome = match &outcome {
            Ok(_) => "accepted".to_owned(),
            Err(refused) => format!("{refused:?}"),
        };
        let kind = outcome.split(['(', ' ']).next().unwrap();
        assert_eq!(kind, expected, "{name}: {outcome}");
    }
}

/// 1,000 times somebody who holds the cloud and every key that is online wants to have something
/// installed that the offline keys have not named.
#[test]
fn nothing_is_installed_that_only_online_keys_have_signed() {
    let refusals = outrigger_tests::tuf::forgeries::run(1000, 1).unwrap();
    println!("{refusals:?}");
    assert_eq!(refusals.values().sum::<u64>(), 1000);
    assert!(refusals.len() >= 7, "the forgeries fail in different ways: {refusals:?}");
}
