//! The cloud's half with a client's: what is taken in is what a device believes.

use super::*;
use protocol::tuf::client::{Answer, Step, Updater};
use protocol::tuf::delegation::{DelegatedRole, Delegations};
use protocol::tuf::install::{Admission, Asked, DIRECTOR_PATHS};
use protocol::tuf::metadata::Role;

const NOW_S: i64 = 1_800_000_000;
const PATH: &str = "m/1/edge.json";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn role(seeds: &[u8], threshold: u64) -> Role {
    Role { keyids: seeds.iter().map(|seed| key(*seed).tuf_key().id()).collect(), threshold }
}

/// Snapshot's key is 5, timestamp's 6, the director's 7.
fn online() -> OnlineKeys {
    OnlineKeys(ONLINE.into_iter().zip(5..).map(|(role, seed)| (role, vec![key(seed)])).collect())
}

/// Root's keys are 1 to 3, of which two sign.
fn root(version: u64) -> Root {
    let roles = [(ROOT, role(&[1, 2, 3], 2)), (TARGETS, role(&[4], 1))];
    let online = [(SNAPSHOT, role(&[5], 1)), (TIMESTAMP, role(&[6], 1))];
    let named = |(name, role): (&str, Role)| (name.to_owned(), role);
    Root {
        head: Head::new(ROOT, version, NOW_S + 400 * DAY_S),
        consistent_snapshot: true,
        keys: (1..=6).map(|seed| key(seed).tuf_key()).map(|key| (key.id(), key)).collect(),
        roles: roles.into_iter().chain(online).map(named).collect(),
        other: BTreeMap::new(),
    }
}

fn targets(version: u64, good: &[u8]) -> Targets {
    let director = key(7).tuf_key();
    let mut targets = Targets::new(version, NOW_S + 400 * DAY_S);
    targets.targets = [(PATH.to_owned(), Target::of(good))].into();
    targets.delegations = Some(Delegations {
        keys: [(director.id(), director)].into(),
        roles: Some(vec![DelegatedRole {
            name: DIRECTOR.to_owned(),
            role: role(&[7], 1),
            terminating: true,
            paths: Some(vec![DIRECTOR_PATHS.to_owned()]),
            path_hash_prefixes: None,
        }]),
        succinct_roles: None,
    });
    targets
}

fn by(said: &impl Said, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    Envelope::signed_by(said, &keys).unwrap().to_bytes()
}

fn offer<const N: usize>(files: [(&str, Vec<u8>); N]) -> Newest {
    files.into_iter().map(|(role, bytes)| (role.to_owned(), bytes)).collect()
}

/// A repository, by file and by role.
#[derive(Default)]
struct Kept {
    by_name: BTreeMap<String, Vec<u8>>,
    newest: Newest,
}

impl Kept {
    fn keep(&mut self, files: Vec<File>) {
        for file in files {
            self.by_name.insert(file.name, file.bytes.clone());
            self.newest.insert(file.role, file.bytes);
        }
    }

    fn begun() -> Self {
        let mut kept = Self::default();
        let offered =
            offer([(ROOT, by(&root(1), &[1, 2])), (TARGETS, by(&targets(1, b"good"), &[4]))]);
        kept.keep(take(&kept.newest, &offered, &online(), NOW_S).unwrap());
        kept
    }

    fn answer(&self, name: &str) -> Answer {
        self.by_name.get(name).map_or(Answer::Absent, |bytes| Answer::Found(bytes.clone()))
    }

    fn admit(&self, asked: Asked<'_>, now_s: i64) -> Result<u64, Refused> {
        let stored = [(ROOT.to_owned(), self.by_name["1.root.json"].clone())].into();
        let mut admission = Admission::begin(stored, asked, now_s)?;
        loop {
            match admission.poll()? {
                Step::Done => return admission.finish(),
                Step::Keep(_) => {}
                Step::Fetch(wanted) => admission.handle(self.answer(&wanted.file_name()))?,
            }
        }
    }
}

#[test]
fn what_both_name_is_admitted_and_nothing_else() {
    let kept = Kept::begun();
    let device: DeviceId = "d-1".parse().unwrap();
    let list = |manifest: &[u8]| {
        let wanted = [(PATH.to_owned(), manifest.to_vec())].into();
        let list = direct(&kept.newest, &online(), &device, &wanted, None, NOW_S).unwrap();
        list.unwrap().1
    };
    let directed = list(b"good");
    let asked =
        Asked { device: &device, path: PATH, manifest: b"good", directed: &directed, seen: 0 };
    assert_eq!(kept.admit(asked, NOW_S), Ok(1));
    let refused = |asked| format!("{:?}", kept.admit(asked, NOW_S).unwrap_err());
    assert!(refused(Asked { seen: 2, ..asked }).starts_with("Rollback"));
    assert!(refused(Asked { manifest: b"evil", ..asked }).starts_with("WrongHash"));
    assert!(refused(Asked { path: "m/2/edge.json", ..asked }).starts_with("NotNamed"));
    let other: DeviceId = "d-2".parse().unwrap();
    assert!(refused(Asked { device: &other, ..asked }).starts_with("NotDirected"));
    let evil = list(b"evil");
    assert!(refused(Asked { directed: &evil, ..asked }).starts_with("Disagreement"));
    let expired = kept.admit(asked, NOW_S + TIMESTAMP_LIFE_S).unwrap_err();
    assert!(matches!(expired, Refused::Expired { role, .. } if role == TIMESTAMP));
}

#[test]
fn what_runs_out_is_signed_anew_and_nothing_else() {
    let mut kept = Kept::begun();
    let renewed = |kept: &Kept, later_s: i64| {
        let files = renew(&kept.newest, &online(), NOW_S + later_s).unwrap();
        files.into_iter().map(|file| file.name).collect::<Vec<_>>()
    };
    assert!(renewed(&kept, DAY_S / 2).is_empty());
    assert_eq!(renewed(&kept, DAY_S + 1), ["timestamp.json"]);
    assert_eq!(renewed(&kept, 16 * DAY_S), ["2.snapshot.json", "timestamp.json"]);
    let later_s = NOW_S + 16 * DAY_S;
    kept.keep(renew(&kept.newest, &online(), later_s).unwrap());
    let stored = [(ROOT.to_owned(), kept.newest[ROOT].clone())].into();
    let mut updater = Updater::begin(stored, later_s).unwrap();
    while let Step::Fetch(wanted) = updater.poll() {
        updater.handle(kept.answer(&wanted.file_name())).unwrap();
        while let Step::Keep(_) = updater.poll() {}
    }
    assert!(updater.is_current());
}

#[test]
fn a_list_stays_until_something_changes_or_half_its_life_is_over() {
    let kept = Kept::begun();
    let device: DeviceId = "d-1".parse().unwrap();
    let list = |manifest: &[u8], last: Option<&[u8]>, later_s: i64| {
        let wanted = [(PATH.to_owned(), manifest.to_vec())].into();
        direct(&kept.newest, &online(), &device, &wanted, last, NOW_S + later_s).unwrap()
    };
    let (first, bytes) = list(b"good", None, 0).unwrap();
    assert_eq!(first, 1);
    assert_eq!(list(b"good", Some(&bytes), DAY_S), None);
    assert_eq!(list(b"other", Some(&bytes), 0).unwrap().0, 2);
    assert_eq!(list(b"good", Some(&bytes), 4 * DAY_S).unwrap().0, 2);
    let nothing = direct(&Newest::new(), &online(), &device, &BTreeMap::new(), None, NOW_S);
    assert_eq!(nothing, Ok(None));
}

#[test]
fn only_what_a_device_would_take_is_taken() {
    let kept = Kept::begun();
    let check = |offered: &Newest| {
        let taken = take(&kept.newest, offered, &online(), NOW_S);
        taken.map(|files| files.len()).map_err(|error| error.to_string())
    };
    let next = |seeds: &[u8]| offer([(TARGETS, by(&targets(2, b"next"), seeds))]);
    assert_eq!(check(&next(&[4])), Ok(3)); // with a snapshot and a timestamp
    let refused = [
        (next(&[5]), "targets is signed by 0 of the keys that count, and 1 are needed"),
        (
            offer([(TARGETS, by(&targets(3, b"next"), &[4]))]),
            "targets is version 3, and 2 was asked for",
        ),
        (
            offer([(ROOT, by(&root(2), &[1]))]),
            "root is signed by 1 of the keys that count, and 2 are needed",
        ),
        (
            offer([(SNAPSHOT, by(&targets(2, b""), &[5]))]),
            "snapshot is not a role whose files are taken in",
        ),
        (
            offer([(DIRECTOR, by(&targets(1, b""), &[7]))]),
            "director is not a role whose files are taken in",
        ),
    ];
    for (offered, why) in refused {
        assert_eq!(check(&offered), Err(why.to_owned()));
    }
    let mut foreign = root(2);
    foreign.roles.insert(TIMESTAMP.to_owned(), role(&[1], 1));
    let foreign = offer([(ROOT, by(&foreign, &[1, 2]))]);
    assert_eq!(check(&foreign), Err("none of the keys for timestamp is here".to_owned()));
    let empty = take(&Newest::new(), &next(&[4]), &online(), NOW_S);
    assert_eq!(empty, Err(RefusedFiles::NoRepository));
}
