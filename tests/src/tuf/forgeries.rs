//! An attacker who holds every key that is online (snapshot, timestamp, director) and the cloud itself,
//! and wants a device to install what the offline keys have not named. The device's side is the machine
//! that the agent runs (`protocol::tuf::install::Admission`), with what it had kept.

use anyhow::{Context, ensure};
use fleet::repository::{self as online, File, Newest, ONLINE, OnlineKeys};
use protocol::id::DeviceId;
use protocol::manifest::SigningKey;
use protocol::tuf::Refused;
use protocol::tuf::client::{Answer, Step};
use protocol::tuf::delegation::{DelegatedRole, Delegations};
use protocol::tuf::install::{Admission, Asked, DIRECTOR, DIRECTOR_PATHS, directed_path};
use protocol::tuf::key::Key;
use protocol::tuf::metadata::{
    Envelope, Head, MetaFile, ROOT, Role, Root, SNAPSHOT, Said, Snapshot, TARGETS, TIMESTAMP,
    Target, Targets, Timestamp,
};
use std::collections::BTreeMap;

use crate::network::Random;

const NOW_S: i64 = 1_800_000_000;
const LATER_S: i64 = NOW_S + 300 * 24 * 3600;
const PATH: &str = "fashion/2/edge.json";
/// The director's list that the device has seen: its third one.
const SEEN: u64 = NOW_S.unsigned_abs() + 2;
/// A version beyond all that were signed.
const AHEAD: u64 = NOW_S.unsigned_abs() + 1000;
const OTHER_PATH: &str = "fashion/1/edge.json";

/// Seeds of keys: root's are 1 to 3 (two must sign), targets' is 4, and 5 to 7 are online.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn online_keys() -> OnlineKeys {
    OnlineKeys(ONLINE.into_iter().zip(5..).map(|(role, seed)| (role, vec![key(seed)])).collect())
}

/// The keys that the attacker has, and one of their own.
const STOLEN: [u8; 4] = [5, 6, 7, 66];

fn role(seeds: &[u8], threshold: u64) -> Role {
    Role { keyids: seeds.iter().map(|seed| key(*seed).tuf_key().id()).collect(), threshold }
}

fn named(seeds: impl IntoIterator<Item = u8>) -> BTreeMap<String, Key> {
    seeds.into_iter().map(|seed| key(seed).tuf_key()).map(|key| (key.id(), key)).collect()
}

fn root(version: u64, targets_key: u8) -> Root {
    let roles = [
        (ROOT, role(&[1, 2, 3], 2)),
        (TARGETS, role(&[targets_key], 1)),
        (SNAPSHOT, role(&[5], 1)),
        (TIMESTAMP, role(&[6], 1)),
    ];
    Root {
        head: Head::new(ROOT, version, LATER_S),
        consistent_snapshot: true,
        keys: named((1..=6).chain([targets_key])),
        roles: roles.into_iter().map(|(name, role)| (name.to_owned(), role)).collect(),
        other: BTreeMap::new(),
    }
}

fn delegated(name: &str, key: u8, pattern: &str) -> DelegatedRole {
    DelegatedRole {
        name: name.to_owned(),
        role: role(&[key], 1),
        terminating: true,
        paths: Some(vec![pattern.to_owned()]),
        path_hash_prefixes: None,
    }
}

fn targets(version: u64, good: &[(&str, &[u8])]) -> Targets {
    let mut targets = Targets::new(version, LATER_S);
    targets.targets = good.iter().map(|(path, b)| ((*path).to_owned(), Target::of(b))).collect();
    targets.delegations = Some(Delegations {
        keys: named([7]),
        roles: Some(vec![delegated(DIRECTOR, 7, DIRECTOR_PATHS)]),
        succinct_roles: None,
    });
    targets
}

fn signed(said: &impl Said, seeds: &[u8]) -> Vec<u8> {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    Envelope::signed_by(said, &keys).expect("all numbers are integers").to_bytes()
}

/// What is served, and what a device is told.
#[derive(Clone)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    newest: Newest,
    directed: Vec<u8>,
    manifest: Vec<u8>,
    path: &'static str,
    /// The device has seen all that the offline keys named, and not only the first of it.
    is_seen: bool,
}

impl Served {
    fn keep(&mut self, files: Vec<File>) {
        for file in files {
            self.files.insert(file.name, file.bytes.clone());
            self.newest.insert(file.role, file.bytes);
        }
    }

    /// A snapshot and a timestamp, newer than any before, that list these versions.
    fn list(&mut self, versions: &[(&str, u64)]) -> anyhow::Result<()> {
        let last: Snapshot = Envelope::parse(SNAPSHOT, &self.newest[SNAPSHOT])?.read(SNAPSHOT)?;
        let version = last.head.version + 1;
        let mut meta = last.meta;
        meta.extend(
            versions.iter().map(|(role, v)| (format!("{role}.json"), MetaFile::version(*v))),
        );
        let snapshot = Snapshot { head: Head::new(SNAPSHOT, version, LATER_S), meta };
        self.files.insert(format!("{version}.snapshot.json"), signed(&snapshot, &[5]));
        let timestamp = Timestamp::new(AHEAD, LATER_S, MetaFile::version(version));
        self.files.insert("timestamp.json".to_owned(), signed(&timestamp, &[6]));
        Ok(())
    }

    /// The director's word for what is to be installed.
    fn direct(&mut self, device: &DeviceId) {
        let mut list = Targets::new(AHEAD, LATER_S);
        let path = directed_path(device, self.path);
        list.targets = [(path, Target::of(&self.manifest))].into();
        self.directed = signed(&list, &[7]);
    }

    fn install(&self, own: &Honest) -> Result<u64, Refused> {
        let stored = if self.is_seen { &own.served.newest } else { &own.stored };
        let asked = Asked {
            device: &own.device,
            path: self.path,
            manifest: &self.manifest,
            directed: &self.directed,
            seen: SEEN,
        };
        let mut admission = Admission::begin(stored.clone(), asked, NOW_S)?;
        loop {
            match admission.poll()? {
                Step::Done => return admission.finish(),
                Step::Keep(_) => {}
                Step::Fetch(wanted) => {
                    let file = self.files.get(&wanted.file_name());
                    let answer = file.map_or(Answer::Absent, |file| Answer::Found(file.clone()));
                    admission.handle(answer)?;
                }
            }
        }
    }
}

/// What the offline keys named: version 1 of a model, then version 2 in its place.
struct Honest {
    device: DeviceId,
    served: Served,
    /// What the device had kept before version 2 was named.
    stored: Newest,
    good: Vec<u8>,
    older: Vec<u8>,
}

impl Honest {
    fn new() -> anyhow::Result<Self> {
        let device: DeviceId = "d-00000001".parse()?;
        let (good, older) =
            (b"{\"model\":\"fashion\",\"version\":2}", b"{\"model\":\"fashion\",\"version\":1}");
        let (good, older) = (good.to_vec(), older.to_vec());
        let nothing = || Vec::new();
        let mut served = Served {
            files: BTreeMap::new(),
            newest: Newest::new(),
            directed: nothing(),
            manifest: good.clone(),
            path: PATH,
            is_seen: false,
        };
        let offer = |role: &str, bytes: Vec<u8>| (role.to_owned(), bytes);
        let first = targets(1, &[(OTHER_PATH, &older)]);
        let begun =
            [offer(ROOT, signed(&root(1, 4), &[1, 2])), offer(TARGETS, signed(&first, &[4]))];
        served.keep(online::take(&served.newest, &begun.into(), &online_keys(), NOW_S)?);
        let stored = served.newest.clone();
        let second = targets(2, &[(PATH, &good)]);
        let next = [offer(TARGETS, signed(&second, &[4]))].into();
        served.keep(online::take(&served.newest, &next, &online_keys(), NOW_S)?);
        for manifest in [older.as_slice(), b"something", good.as_slice()] {
            let wanted = [(PATH.to_owned(), manifest.to_vec())].into();
            let last = (!served.directed.is_empty()).then_some(served.directed.as_slice());
            let list =
                online::direct(&served.newest, &online_keys(), &device, &wanted, last, NOW_S)?;
            served.directed = list.context("a list that says something new")?.1;
        }
        Ok(Self { device, served, stored, good, older })
    }
}

/// One way to forge. Each changes what is served, with what the attacker has.
type Forgery = fn(&Honest, &mut Served, &mut Random) -> anyhow::Result<()>;

const FORGERIES: [(&str, Forgery); 16] = [
    ("another manifest, which the director names", other_manifest),
    ("a byte of the manifest is flipped, and the director names that", flipped_manifest),
    ("the manifest is longer or shorter, and the director names that", other_length),
    ("targets of the attacker's, signed by stolen keys", own_targets),
    ("the targets altered under their signature", altered_targets),
    ("a root of the attacker's, signed by stolen keys", own_root),
    ("the root altered under its signatures", altered_root),
    ("a root signed by one of root's keys alone, and stolen ones", below_threshold),
    ("a role that nobody delegated to", extraneous_role),
    ("the director's own list as a role of the snapshot", director_as_team),
    ("the older version under the newer one's name", older_as_newer),
    ("a version that was never named", never_named),
    ("what was named before and is no more, as the newest again", old_targets),
    ("the list of another device", other_device),
    ("an older list of the director", older_list),
    ("a byte of any file is flipped", flipped_file),
];

fn evil(random: &mut Random) -> Vec<u8> {
    format!("{{\"evil\":{}}}", random.bits()).into_bytes()
}

fn other_manifest(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.manifest = evil(random);
    served.direct(&own.device);
    Ok(())
}

/// One of so many, from 0 on.
fn draw(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).unwrap_or(0)
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = draw(random, bytes.len());
    bytes[at] ^= 1 << random.below(8);
}

fn flipped_manifest(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    flip(&mut served.manifest, random);
    served.direct(&own.device);
    Ok(())
}

fn other_length(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    match random.below(2) {
        0 => drop(served.manifest.pop()),
        _ => served.manifest.push(b' '),
    }
    served.direct(&own.device);
    Ok(())
}

fn own_targets(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.manifest = evil(random);
    let version = 3 + random.below(1000);
    let keys = &STOLEN[draw(random, 3)..];
    let targets = targets(version, &[(PATH, &served.manifest)]);
    served.files.insert(format!("{version}.targets.json"), signed(&targets, keys));
    served.direct(&own.device);
    served.list(&[(TARGETS, version)])
}

fn altered_targets(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.manifest = evil(random);
    let mut envelope = Envelope::parse(TARGETS, &served.newest[TARGETS])?;
    let version = 2 + random.below(2);
    let altered = Envelope::unsigned(&targets(version, &[(PATH, &served.manifest)]));
    envelope.signed = altered.signed;
    served.files.insert(format!("{version}.targets.json"), envelope.to_bytes());
    served.direct(&own.device);
    served.list(&[(TARGETS, version)])
}

/// Root 2 says that the attacker's key is that of targets, and all that follows is signed by it.
fn under_own_root(
    own: &Honest,
    served: &mut Served,
    root: Vec<u8>,
    random: &mut Random,
) -> anyhow::Result<()> {
    served.manifest = evil(random);
    served.files.insert("2.root.json".to_owned(), root);
    let targets = targets(3, &[(PATH, &served.manifest)]);
    served.files.insert("3.targets.json".to_owned(), signed(&targets, &[66]));
    served.direct(&own.device);
    served.list(&[(TARGETS, 3)])
}

fn own_root(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let mut forged = root(2, 66);
    if random.chance(0.5) {
        forged.roles.insert(ROOT.to_owned(), role(&STOLEN, 2));
        forged.keys.extend(named(STOLEN));
    }
    under_own_root(own, served, signed(&forged, &STOLEN), random)
}

fn altered_root(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let mut envelope = Envelope::parse(ROOT, &served.newest[ROOT])?;
    envelope.signed = Envelope::unsigned(&root(2, 66)).signed;
    under_own_root(own, served, envelope.to_bytes(), random)
}

fn below_threshold(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let mut forged = root(2, 66);
    if random.chance(0.5) {
        forged.roles.insert(ROOT.to_owned(), role(&[1, 2, 3], 1));
    }
    let one = [1, 2, 3][draw(random, 3)];
    under_own_root(own, served, signed(&forged, &[one, 5, 6, 7, 66]), random)
}

fn extraneous_role(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.manifest = evil(random);
    served.path = "vision/1/edge.json";
    let targets = targets(1, &[(served.path, &served.manifest)]);
    served.files.insert("1.vision.json".to_owned(), signed(&targets, &STOLEN));
    served.direct(&own.device);
    served.list(&[("vision", 1)])
}

fn director_as_team(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.manifest = evil(random);
    let targets = targets(1, &[(PATH, &served.manifest)]);
    served.files.insert("1.director.json".to_owned(), signed(&targets, &[7]));
    served.direct(&own.device);
    served.list(&[(DIRECTOR, 1)])
}

fn older_as_newer(own: &Honest, served: &mut Served, _: &mut Random) -> anyhow::Result<()> {
    served.manifest = own.older.clone();
    served.direct(&own.device);
    Ok(())
}

fn never_named(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    served.path =
        ["fashion/3/edge.json", "fashion/2/cloud.json", "other/2/edge.json"][draw(random, 3)];
    served.direct(&own.device);
    Ok(())
}

fn old_targets(own: &Honest, served: &mut Served, _: &mut Random) -> anyhow::Result<()> {
    served.is_seen = true;
    served.path = OTHER_PATH;
    served.manifest = own.older.clone();
    served.direct(&own.device);
    served.list(&[(TARGETS, 1)])
}

fn other_device(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let other: DeviceId = format!("d-{:08x}", 2 + random.below(1 << 30)).parse()?;
    ensure!(other != own.device, "another device");
    served.direct(&other);
    Ok(())
}

fn older_list(own: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let mut list = Targets::new(1 + random.below(SEEN - 1), LATER_S);
    list.targets = [(directed_path(&own.device, PATH), Target::of(&own.good))].into();
    served.directed = signed(&list, &[7]);
    Ok(())
}

/// A flip that leaves what is said and signed as it was is no forgery: those are drawn again.
fn flipped_file(_: &Honest, served: &mut Served, random: &mut Random) -> anyhow::Result<()> {
    let snapshot = served.files.keys().rfind(|name| name.ends_with(".snapshot.json"));
    let snapshot = snapshot.context("no snapshot")?.clone();
    let names = ["2.targets.json", &snapshot, "timestamp.json", ""];
    let name = names[draw(random, 4)];
    let bytes = match name {
        "" => &mut served.directed,
        name => served.files.get_mut(name).with_context(|| name.to_owned())?,
    };
    loop {
        let before = bytes.clone();
        flip(bytes, random);
        let (old, new): (Result<serde_json::Value, _>, Result<serde_json::Value, _>) =
            (serde_json::from_slice(&before), serde_json::from_slice(bytes));
        let same = matches!((&old, &new), (Ok(old), Ok(new)) if old == new);
        // A key's letters in hexadecimal may be of either case.
        let lower = |bytes: &[u8]| bytes.to_ascii_lowercase();
        if !same && lower(&before) != lower(bytes) {
            return Ok(());
        }
        *bytes = before;
    }
}

/// Forges so many installations: how many were refused, by the kind of refusal.
///
/// # Errors
/// One was accepted, or an honest one refused.
pub fn run(count: u64, seed: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let honest = Honest::new()?;
    let mut refusals = BTreeMap::new();
    for (number, (what, forge)) in (0..count).zip(FORGERIES.iter().cycle()) {
        let accepted = honest.served.install(&honest);
        ensure!(accepted.is_ok(), "what both named is refused: {accepted:?}");
        let mut random = Random::new(seed.wrapping_add(number));
        let mut served = honest.served.clone();
        forge(&honest, &mut served, &mut random).context(*what)?;
        match served.install(&honest) {
            Ok(_) => anyhow::bail!("accepted: {what} (number {number} of seed {seed})"),
            Err(refused) => {
                let kind = format!("{refused:?}");
                let kind = kind.split(['(', ' ']).next().unwrap_or_default().to_owned();
                *refusals.entry(kind).or_insert(0) += 1;
            }
        }
    }
    Ok(refusals)
}
