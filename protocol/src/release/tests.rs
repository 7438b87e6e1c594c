//! What is taken for a release, and what is not.

use super::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn release() -> Release {
    let bytes = b"program";
    Release {
        format: FORMAT,
        version: "0.2.0".parse().unwrap(),
        target: "x86_64-unknown-linux-gnu".into(),
        program: FileRef { sha256: ContentHash::of(bytes), size_bytes: bytes.len() as u64 },
        oldest: Some("0.1.5".parse().unwrap()),
    }
}

#[test]
fn versions_are_three_numbers_in_order() {
    let version = |text: &str| text.parse::<ReleaseVersion>();
    for text in
        ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.+2.3", "1.2.3-rc1", "1..3", "4294967296.0.0"]
    {
        assert!(matches!(version(text), Err(InvalidRelease::Version(_))), "{text}");
    }
    let sorted = ["0.1.0", "0.1.9", "0.1.10", "0.2.0", "1.0.0"].map(|text| version(text).unwrap());
    assert!(sorted.is_sorted() && sorted[0] == ReleaseVersion::new(0, 1, 0));
    assert_eq!(sorted[2].to_string(), "0.1.10");
}

#[test]
fn what_a_trusted_key_signed_is_read() {
    let signed = release().sign(&key(1));
    let again = SignedRelease::from_json(&signed.to_json()).unwrap();
    assert_eq!(again.verify(&[key(2).public(), key(1).public()]).unwrap(), release());
    assert_eq!(release().path(), "+agent/0.2.0/x86_64-unknown-linux-gnu.json");
    assert!("+agent".parse::<crate::id::ModelName>().is_err(), "no model takes its place");
}

#[test]
fn what_is_forged_or_foreign_is_not() {
    let signed = release().sign(&key(1));
    let unknown = signed.verify(&[key(2).public()]);
    assert_eq!(unknown, Err(InvalidRelease::UnknownKey(key(1).public().key_id())));
    let mut forged = signed.clone();
    forged.release = forged.release.replace("0.2.0", "0.3.0");
    assert_eq!(forged.verify(&[key(1).public()]), Err(InvalidRelease::Forged));
    // A signature of the same key over the same text, but not as a release.
    let mut other = signed.clone();
    other.signature = key(1).sign_text(b"outrigger-manifest-v1\0", &signed.release);
    assert_eq!(other.verify(&[key(1).public()]), Err(InvalidRelease::Forged));
    let large = vec![b' '; RELEASE_MAX_BYTES + 1];
    assert_eq!(SignedRelease::from_json(&large), Err(InvalidRelease::Malformed));
}

#[test]
fn what_it_says_is_bounded() {
    let check = |change: fn(&mut Release)| {
        let mut changed = release();
        change(&mut changed);
        Release::from_json(&serde_json::to_string(&changed).unwrap()).unwrap_err()
    };
    assert_eq!(check(|r| r.format = 2), InvalidRelease::Format(2));
    assert_eq!(check(|r| r.program.size_bytes = 0), InvalidRelease::Size(0));
    let most = RELEASE_FILE_MAX_BYTES + 1;
    assert_eq!(
        check(|r| r.program.size_bytes = RELEASE_FILE_MAX_BYTES + 1),
        InvalidRelease::Size(most)
    );
    for target in ["", "../../x", "a b", "x/y", "-x"] {
        let mut changed = release();
        changed.target = target.into();
        let text = serde_json::to_string(&changed).unwrap();
        assert_eq!(Release::from_json(&text), Err(InvalidRelease::Target(target.into())));
    }
}

/// A header as programs have it, and bytes behind it.
fn program(machine: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[18] = machine;
    bytes.extend_from_slice(rest);
    bytes
}

#[test]
fn a_program_says_what_it_is() {
    let target = "x86_64-unknown-linux-gnu";
    let own = mark("0.1.0", target);
    let behind = [&own[..16], b"something else", &own, b"more"].concat();
    let found = Mark::find(&program(62, &behind)).unwrap();
    assert_eq!(found, Mark { version: ReleaseVersion::new(0, 1, 0), target: target.into() });
    assert_eq!(found.to_string().parse::<Mark>().unwrap(), found);
    let check = |bytes: &[u8]| Mark::find(bytes).unwrap_err();
    assert_eq!(check(b"#!/bin/sh"), NoMark::NotElf);
    assert_eq!(check(&program(62, &own[..16])), NoMark::Absent);
    assert_eq!(check(&program(62, &own[..30])), NoMark::Absent);
    let other = NoMark::OtherMachine { target: target.into(), machine: 183 };
    assert_eq!(check(&program(183, &own)), other);
}
