//! The online half of a repository of models (`protocol::tuf`): what is taken in from whoever holds the
//! offline keys, and what the cloud then signs itself: snapshot, timestamp, and a director's list for
//! each device. Nothing that it signs makes a bundle good: that is what targets' keys are for, and
//! those are not here.

use protocol::id::DeviceId;
use protocol::manifest::SigningKey;
use protocol::tuf::Refused;
use protocol::tuf::client::{quote, trusted_root};
use protocol::tuf::install::{DIRECTOR, directed_path};
use protocol::tuf::metadata::{
    Envelope, Head, MetaFile, ROOT, RoleKeys, Root, SNAPSHOT, Said, Snapshot, TARGETS, TIMESTAMP,
    Target, Targets, Timestamp,
};
use std::collections::BTreeMap;

/// How long a snapshot is good: this bounds what an attacker who has nothing but its key can hold back.
pub const SNAPSHOT_LIFE_S: i64 = 30 * DAY_S;
/// How long a timestamp is good: after this a frozen repository is noticed.
pub const TIMESTAMP_LIFE_S: i64 = 2 * DAY_S;
/// How long a director's list is good.
pub const DIRECTED_LIFE_S: i64 = 7 * DAY_S;
const DAY_S: i64 = 24 * 60 * 60;

/// The roles whose keys are online.
pub const ONLINE: [&str; 3] = [SNAPSHOT, TIMESTAMP, DIRECTOR];

/// The newest file of each role, byte for byte.
pub type Newest = BTreeMap<String, Vec<u8>>;

/// A file to be kept and served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As clients ask for it.
    pub name: String,
    /// Whose.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// Byte for byte.
    pub bytes: Vec<u8>,
}

impl File {
    fn of(role: &str, said: &impl Said, bytes: Vec<u8>) -> Self {
        let version = said.head().version;
        let name = match role {
            TIMESTAMP => format!("{TIMESTAMP}.json"),
            role => format!("{version}.{}.json", quote(role)),
        };
        Self { name, role: role.to_owned(), version, bytes }
    }
}

/// Why files are not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedFiles {
    /// As a device would refuse them.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Root leaves a role that is online to keys that are not here.
    #[error("none of the keys for {0} is here")]
    ForeignKeys(&'static str),
    /// A role that nobody delegated to, or that is signed here.
    #[error("{0} is not a role whose files are taken in")]
    Role(String),
    /// There is no repository, and this is no beginning of one.
    #[error("there is no repository yet: it begins with root and targets")]
    NoRepository,
    /// What is said has no canonical form.
    #[error("numbers in metadata are integers")]
    NotCanonical,
}

/// The keys that are online, all of each role's; those that root (or targets, for the director) names
/// are the ones that sign.
pub struct OnlineKeys(pub BTreeMap<&'static str, Vec<SigningKey>>);

impl OnlineKeys {
    fn named(&self, role: &'static str, keys: &RoleKeys) -> Result<Vec<&SigningKey>, RefusedFiles> {
        let own = self.0.get(role).into_iter().flatten();
        let named: Vec<_> = own.filter(|key| keys.keys.contains_key(&key.tuf_key().id())).collect();
        let enough = u64::try_from(named.len()).is_ok_and(|count| count >= keys.threshold);
        enough.then_some(named).ok_or(RefusedFiles::ForeignKeys(role))
    }
}

/// Takes files in that somebody signed with offline keys, if a device would take them, and signs what
/// follows from them. All of it, or nothing.
///
/// # Errors
/// [`RefusedFiles`].
pub fn take(
    newest: &Newest,
    offered: &Newest,
    online: &OnlineKeys,
    now_s: i64,
) -> Result<Vec<File>, RefusedFiles> {
    let mut files = Vec::new();
    let root = take_root(newest, offered, online, &mut files)?;
    root.head.check_expiry(ROOT, now_s)?;
    let targets =
        take_targets(newest, offered, TARGETS, &root.keys_of(TARGETS), now_s, &mut files)?;
    let delegations = targets.delegations.as_ref();
    if let Some(keys) = delegations.and_then(|delegations| delegations.keys_of(DIRECTOR)) {
        online.named(DIRECTOR, &keys)?;
    }
    let mut meta: BTreeMap<String, MetaFile> = BTreeMap::new();
    meta.insert(format!("{TARGETS}.json"), MetaFile::version(targets.head.version));
    let teams =
        delegations.and_then(|delegations| delegations.roles.as_ref()).into_iter().flatten();
    for team in teams.filter(|team| team.name != DIRECTOR) {
        let Some(keys) = delegations.and_then(|d| d.keys_of(&team.name)) else { continue };
        if newest.contains_key(&team.name) || offered.contains_key(&team.name) {
            let own = take_targets(newest, offered, &team.name, &keys, now_s, &mut files)?;
            meta.insert(format!("{}.json", team.name), MetaFile::version(own.head.version));
        }
    }
    let taken = |role: &String| files.iter().any(|file| file.role == *role);
    if let Some(role) = offered.keys().find(|role| !taken(role)) {
        return Err(RefusedFiles::Role(role.clone()));
    }
    files.extend(sign(newest, &root, meta, online, now_s)?);
    Ok(files)
}

fn take_root(
    newest: &Newest,
    offered: &Newest,
    online: &OnlineKeys,
    files: &mut Vec<File>,
) -> Result<Root, RefusedFiles> {
    let known = newest.get(ROOT).map(|bytes| trusted_root(bytes)).transpose()?;
    let Some(bytes) = offered.get(ROOT) else { return known.ok_or(RefusedFiles::NoRepository) };
    let root = trusted_root(bytes)?;
    if let Some(known) = &known {
        let _: Root = Envelope::parse(ROOT, bytes)?.verify(ROOT, &known.keys_of(ROOT))?;
    }
    let expected = known.map_or(1, |known| known.head.version + 1);
    check_version(ROOT, expected, root.head.version)?;
    for role in [SNAPSHOT, TIMESTAMP] {
        online.named(role, &root.keys_of(role))?;
    }
    files.push(File::of(ROOT, &root, bytes.clone()));
    Ok(root)
}

/// The targets of a role: those that are offered, the next version, or those that were here, if they
/// still count.
fn take_targets(
    newest: &Newest,
    offered: &Newest,
    role: &str,
    keys: &RoleKeys,
    now_s: i64,
    files: &mut Vec<File>,
) -> Result<Targets, RefusedFiles> {
    let known = newest.get(role).map(|bytes| Envelope::parse(role, bytes)).transpose()?;
    let Some(bytes) = offered.get(role) else {
        let known = known.ok_or(RefusedFiles::NoRepository)?;
        return Ok(known.verify(role, keys)?);
    };
    let targets: Targets = Envelope::parse(role, bytes)?.verify(role, keys)?;
    let known: Option<Targets> = known.map(|known| known.read(role)).transpose()?;
    check_version(role, known.map_or(1, |known| known.head.version + 1), targets.head.version)?;
    targets.head.check_expiry(role, now_s)?;
    files.push(File::of(role, &targets, bytes.clone()));
    Ok(targets)
}

fn check_version(role: &str, expected: u64, actual: u64) -> Result<(), Refused> {
    let wrong = || Refused::WrongVersion { role: role.to_owned(), expected, actual };
    (expected == actual).then_some(()).ok_or_else(wrong)
}

/// A snapshot of these files, and the timestamp that names it.
fn sign(
    newest: &Newest,
    root: &Root,
    meta: BTreeMap<String, MetaFile>,
    online: &OnlineKeys,
    now_s: i64,
) -> Result<Vec<File>, RefusedFiles> {
    let version = next_version::<Snapshot>(newest, SNAPSHOT)?;
    let snapshot = Snapshot { head: Head::new(SNAPSHOT, version, now_s + SNAPSHOT_LIFE_S), meta };
    let keys = online.named(SNAPSHOT, &root.keys_of(SNAPSHOT))?;
    let snapshot_file = File::of(SNAPSHOT, &snapshot, signed(&snapshot, keys)?);
    let timestamp = timestamp(newest, root, &snapshot_file.bytes, version, online, now_s)?;
    Ok(vec![snapshot_file, timestamp])
}

fn timestamp(
    newest: &Newest,
    root: &Root,
    snapshot: &[u8],
    snapshot_version: u64,
    online: &OnlineKeys,
    now_s: i64,
) -> Result<File, RefusedFiles> {
    let target = Target::of(snapshot);
    let named = MetaFile {
        version: snapshot_version,
        length: Some(target.length),
        hashes: Some(target.hashes),
    };
    let version = next_version::<Timestamp>(newest, TIMESTAMP)?;
    let timestamp = Timestamp::new(version, now_s + TIMESTAMP_LIFE_S, named);
    let keys = online.named(TIMESTAMP, &root.keys_of(TIMESTAMP))?;
    Ok(File::of(TIMESTAMP, &timestamp, signed(&timestamp, keys)?))
}

fn signed(said: &impl Said, keys: Vec<&SigningKey>) -> Result<Vec<u8>, RefusedFiles> {
    let envelope = Envelope::signed_by(said, keys).map_err(|_| RefusedFiles::NotCanonical)?;
    Ok(envelope.to_bytes())
}

fn next_version<S: Said>(newest: &Newest, role: &str) -> Result<u64, RefusedFiles> {
    let Some(bytes) = newest.get(role) else { return Ok(1) };
    let known: S = Envelope::parse(role, bytes)?.read(role)?;
    Ok(known.head().version + 1)
}

/// What must be signed anew because less than half of its time is left; nothing where all is fresh, or
/// where there is no repository.
///
/// # Errors
/// [`RefusedFiles`].
pub fn renew(newest: &Newest, online: &OnlineKeys, now_s: i64) -> Result<Vec<File>, RefusedFiles> {
    let (Some(root), Some(snapshot), Some(timestamp_file)) =
        (newest.get(ROOT), newest.get(SNAPSHOT), newest.get(TIMESTAMP))
    else {
        return Ok(Vec::new());
    };
    let root = trusted_root(root)?;
    let said: Snapshot = Envelope::parse(SNAPSHOT, snapshot)?.read(SNAPSHOT)?;
    let at_s = |life_s: i64| now_s + life_s / 2;
    if said.head.check_expiry(SNAPSHOT, at_s(SNAPSHOT_LIFE_S)).is_err() {
        return sign(newest, &root, said.meta, online, now_s);
    }
    let known: Timestamp = Envelope::parse(TIMESTAMP, timestamp_file)?.read(TIMESTAMP)?;
    if known.head.check_expiry(TIMESTAMP, at_s(TIMESTAMP_LIFE_S)).is_err() {
        return Ok(vec![timestamp(newest, &root, snapshot, said.head.version, online, now_s)?]);
    }
    Ok(Vec::new())
}

/// The director's list for a device: each path of the repository that it should install, with the
/// manifest. Nothing where the last one says the same and is fresh, or where targets name no director.
///
/// # Errors
/// [`RefusedFiles`].
pub fn direct(
    newest: &Newest,
    online: &OnlineKeys,
    device: &DeviceId,
    manifests: &BTreeMap<String, Vec<u8>>,
    last: Option<&[u8]>,
    now_s: i64,
) -> Result<Option<(u64, Vec<u8>)>, RefusedFiles> {
    let Some(targets) = newest.get(TARGETS) else { return Ok(None) };
    let targets: Targets = Envelope::parse(TARGETS, targets)?.read(TARGETS)?;
    let delegations = targets.delegations.as_ref();
    let Some(keys) = delegations.and_then(|d| d.keys_of(DIRECTOR)) else { return Ok(None) };
    let last = last.map(|bytes| Envelope::parse(DIRECTOR, bytes)).transpose()?;
    let said: Option<Targets> = last.as_ref().map(|last| last.read(DIRECTOR)).transpose()?;
    let version = said.as_ref().map_or(1, |said| said.head.version + 1);
    let mut list = Targets::new(version, now_s + DIRECTED_LIFE_S);
    list.targets = manifests
        .iter()
        .map(|(path, manifest)| (directed_path(device, path), Target::of(manifest)))
        .collect();
    if let (Some(last), Some(said)) = (&last, &said) {
        let holds = last.verify::<Targets>(DIRECTOR, &keys).is_ok();
        let is_fresh = said.head.check_expiry(DIRECTOR, now_s + DIRECTED_LIFE_S / 2).is_ok();
        if holds && is_fresh && said.targets == list.targets {
            return Ok(None);
        }
    }
    Ok(Some((version, signed(&list, online.named(DIRECTOR, &keys)?)?)))
}

#[cfg(test)]
mod tests;
