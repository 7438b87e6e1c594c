//! The four files (specification, section 4), and how a file becomes one that counts: parsed within
//! its limits, signed by a threshold of different keys, in the canonical form of exactly what was said.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::delegation::Delegations;
use super::key::Key;
use super::{Refused, canonical, date};
use crate::limits::{
    TUF_ROLE_KEYS_MAX, TUF_ROOT_MAX_BYTES, TUF_SIGNATURES_MAX, TUF_SNAPSHOT_MAX_BYTES,
    TUF_TARGETS_MAX_BYTES, TUF_TIMESTAMP_MAX_BYTES,
};

/// The role that names all keys.
pub const ROOT: &str = "root";
/// The role that says which snapshot is the newest.
pub const TIMESTAMP: &str = "timestamp";
/// The role that says which versions belong together.
pub const SNAPSHOT: &str = "snapshot";
/// The role that says which files are good.
pub const TARGETS: &str = "targets";
/// The version of the specification.
pub const SPEC_VERSION: &str = "1.0.33";

/// The largest file of a role.
pub fn max_bytes(role: &str) -> u64 {
    match role {
        ROOT => TUF_ROOT_MAX_BYTES,
        TIMESTAMP => TUF_TIMESTAMP_MAX_BYTES,
        SNAPSHOT => TUF_SNAPSHOT_MAX_BYTES,
        _ => TUF_TARGETS_MAX_BYTES,
    }
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose.
    pub keyid: String,
    /// Hexadecimal.
    pub sig: String,
}

/// A file as it stands: what is said, and who signed that. Not trusted yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who signed.
    pub signatures: Vec<Signature>,
    /// What is said.
    pub signed: Value,
}

impl Envelope {
    /// Reads a file of a role.
    ///
    /// # Errors
    /// [`Refused::TooLarge`], [`Refused::Malformed`].
    pub fn parse(role: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let max_bytes = max_bytes(role);
        if bytes.len() as u64 > max_bytes {
            return Err(Refused::TooLarge { what: role.to_owned(), max_bytes });
        }
        let envelope: Self =
            serde_json::from_slice(bytes).map_err(|e| Refused::malformed(role, e))?;
        let ids: BTreeSet<_> = envelope.signatures.iter().map(|s| &s.keyid).collect();
        if ids.len() < envelope.signatures.len() || ids.len() > TUF_SIGNATURES_MAX {
            return Err(Refused::malformed(role, "two signatures of one key, or too many"));
        }
        Ok(envelope)
    }

    /// What the role says, once the threshold of its keys has signed it.
    ///
    /// # Errors
    /// [`Refused::Unsigned`], [`Refused::Malformed`].
    pub fn verify<S: Said>(&self, role: &str, keys: &RoleKeys) -> Result<S, Refused> {
        let text = canonical::to_text(&self.signed).map_err(|e| Refused::malformed(role, e))?;
        let valid = keys.count(&self.signatures, &text);
        if (valid as u64) < keys.threshold {
            return Err(Refused::Unsigned {
                role: role.to_owned(),
                valid,
                threshold: keys.threshold,
            });
        }
        self.read(role)
    }

    /// What the role says, whoever signed it.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn read<S: Said>(&self, role: &str) -> Result<S, Refused> {
        let said = S::deserialize(&self.signed).map_err(|e| Refused::malformed(role, e))?;
        let head = said.head();
        let why = if head.kind != S::KIND {
            "another type"
        } else if head.version == 0 {
            "version 0"
        } else if !head.spec_version.starts_with("1.") {
            "another version of the specification"
        } else if date::parse(&head.expires).is_none() {
            "no date of expiry"
        } else {
            said.check().map_err(|why| Refused::malformed(role, why))?;
            return Ok(said);
        };
        Err(Refused::malformed(role, why))
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("what came from JSON is JSON")
    }
}

/// The keys of a role that count, and how many must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// By name.
    pub keys: BTreeMap<String, Key>,
    /// How many.
    pub threshold: u64,
}

impl RoleKeys {
    /// The keys of a role, out of all that a file knows.
    pub fn of(role: &Role, known: &BTreeMap<String, Key>) -> Self {
        let key = |id: &String| Some((id.clone(), known.get(id)?.clone()));
        Self { keys: role.keyids.iter().filter_map(key).collect(), threshold: role.threshold }
    }

    /// How many different keys have signed. One key under two names is one key.
    fn count(&self, signatures: &[Signature], text: &str) -> usize {
        let valid = |signature: &Signature| {
            let key = self.keys.get(&signature.keyid)?;
            key.has_signed(text, &signature.sig).then_some(&key.keyval.public)
        };
        signatures.iter().filter_map(valid).collect::<BTreeSet<_>>().len()
    }
}

/// Which file of a role somebody has, and until when it is good; for people and for alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Its version.
    pub version: u64,
    /// Unix seconds.
    pub expires_s: i64,
}

impl Lifetime {
    /// What a file says of itself; `None` where it says nothing of the kind.
    pub fn of(role: &str, bytes: &[u8]) -> Option<Self> {
        let said = Envelope::parse(role, bytes).ok()?.signed;
        let head = Head::deserialize(&said).ok()?;
        Some(Self { version: head.version, expires_s: date::parse(&head.expires)? })
    }
}

/// What one of the four says.
pub trait Said: DeserializeOwned + Serialize {
    /// `_type`.
    const KIND: &str;
    /// What all of them say.
    fn head(&self) -> &Head;
    /// The same, to be changed.
    fn head_mut(&mut self) -> &mut Head;
    /// What makes it no metadata although its fields are there.
    ///
    /// # Errors
    /// Why.
    fn check(&self) -> Result<(), &'static str>;
}

/// What all files say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Which file it is.
    #[serde(rename = "_type")]
    pub kind: String,
    /// The specification's.
    pub spec_version: String,
    /// Grows with each change.
    pub version: u64,
    /// Until when it is good.
    pub expires: String,
}

impl Head {
    /// The head of a file of this kind.
    pub fn new(kind: &str, version: u64, expires_s: i64) -> Self {
        let expires = date::format(expires_s);
        Self { kind: kind.to_owned(), spec_version: SPEC_VERSION.to_owned(), version, expires }
    }

    /// Refuses what is out of date.
    ///
    /// # Errors
    /// [`Refused::Expired`].
    pub fn check_expiry(&self, role: &str, now_s: i64) -> Result<(), Refused> {
        match date::parse(&self.expires) {
            Some(until_s) if now_s < until_s => Ok(()),
            _ => Err(Refused::Expired { role: role.to_owned(), expired: self.expires.clone() }),
        }
    }
}

macro_rules! said {
    ($type:ty, $kind:expr) => {
        impl Said for $type {
            const KIND: &str = $kind;
            fn head(&self) -> &Head {
                &self.head
            }
            fn head_mut(&mut self) -> &mut Head {
                &mut self.head
            }
            fn check(&self) -> Result<(), &'static str> {
                self.check_fields()
            }
        }
    };
}
said!(Root, ROOT);
said!(Timestamp, TIMESTAMP);
said!(Snapshot, SNAPSHOT);
said!(Targets, TARGETS);

/// Who a role is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Names of its keys.
    pub keyids: Vec<String>,
    /// How many of them must sign.
    pub threshold: u64,
}

impl Role {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let ids: BTreeSet<_> = self.keyids.iter().collect();
        if self.threshold == 0 {
            Err("a threshold of 0")
        } else if ids.len() < self.keyids.len() || ids.len() > TUF_ROLE_KEYS_MAX {
            Err("a role with a key twice, or too many keys")
        } else {
            Ok(())
        }
    }
}

/// Who may say what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Root {
    /// What all files say.
    #[serde(flatten)]
    pub head: Head,
    /// Whether files have their version in their name, so that a reader sees one state.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// All keys.
    pub keys: BTreeMap<String, Key>,
    /// The four roles.
    pub roles: BTreeMap<String, Role>,
    /// What else is said.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Root {
    fn check_fields(&self) -> Result<(), &'static str> {
        let all = [ROOT, TIMESTAMP, SNAPSHOT, TARGETS].iter().all(|r| self.roles.contains_key(*r));
        if !all || self.roles.len() != 4 {
            return Err("other roles than the four");
        }
        self.roles.values().try_for_each(Role::check)
    }

    /// The keys of one of the four.
    pub fn keys_of(&self, role: &str) -> RoleKeys {
        let none = Role { keyids: Vec::new(), threshold: u64::MAX };
        RoleKeys::of(self.roles.get(role).unwrap_or(&none), &self.keys)
    }
}

/// A file of metadata as another one names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetaFile {
    /// Its version.
    pub version: u64,
    /// Its length, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its hashes, if they were said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashes: Option<BTreeMap<String, String>>,
}

impl MetaFile {
    /// A file of which only the version is said.
    pub fn version(version: u64) -> Self {
        Self { version, length: None, hashes: None }
    }

    /// Refuses other bytes than those that are named.
    pub(super) fn check(&self, role: &str, bytes: &[u8]) -> Result<(), Refused> {
        if let Some(signed_bytes) = self.length
            && signed_bytes != bytes.len() as u64
        {
            let (what, actual_bytes) = (role.to_owned(), bytes.len() as u64);
            return Err(Refused::WrongLength { what, signed_bytes, actual_bytes });
        }
        self.hashes.as_ref().map_or(Ok(()), |hashes| check_hashes(role, hashes, bytes))
    }

    pub(super) fn max_bytes(&self, role: &str) -> u64 {
        self.length.unwrap_or(u64::MAX).min(max_bytes(role))
    }
}

fn check_hashes(
    what: &str,
    hashes: &BTreeMap<String, String>,
    bytes: &[u8],
) -> Result<(), Refused> {
    let mut any = false;
    for (name, algorithm) in [("sha256", &ring::digest::SHA256), ("sha512", &ring::digest::SHA512)]
    {
        let Some(signed) = hashes.get(name) else { continue };
        any = true;
        if hex::encode(ring::digest::digest(algorithm, bytes)) != *signed {
            return Err(Refused::WrongHash(what.to_owned()));
        }
    }
    any.then_some(()).ok_or_else(|| Refused::NoHash(what.to_owned()))
}

/// Which snapshot is the newest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timestamp {
    /// What all files say.
    #[serde(flatten)]
    pub head: Head,
    /// The snapshot, alone.
    pub meta: BTreeMap<String, MetaFile>,
}

const SNAPSHOT_FILE: &str = "snapshot.json";

impl Timestamp {
    /// One that names this snapshot.
    pub fn new(version: u64, expires_s: i64, snapshot: MetaFile) -> Self {
        let meta = [(SNAPSHOT_FILE.to_owned(), snapshot)].into();
        Self { head: Head::new(TIMESTAMP, version, expires_s), meta }
    }

    fn check_fields(&self) -> Result<(), &'static str> {
        match self.meta.get(SNAPSHOT_FILE) {
            Some(snapshot) if self.meta.len() == 1 && snapshot.version > 0 => Ok(()),
            _ => Err("it does not name one snapshot"),
        }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &MetaFile {
        &self.meta[SNAPSHOT_FILE] // checked when it was read
    }
}

/// Which versions belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What all files say.
    #[serde(flatten)]
    pub head: Head,
    /// The targets' files.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Snapshot {
    fn check_fields(&self) -> Result<(), &'static str> {
        self.meta.values().all(|file| file.version > 0).then_some(()).ok_or("version 0 of a file")
    }

    /// A targets' role file.
    pub fn file(&self, role: &str) -> Option<&MetaFile> {
        self.meta.get(&format!("{role}.json"))
    }
}

/// Which files are good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// What all files say.
    #[serde(flatten)]
    pub head: Head,
    /// The files, by path.
    pub targets: BTreeMap<String, Target>,
    /// Who else may name files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
    /// What else is said.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Targets {
    /// One that names nothing.
    pub fn new(version: u64, expires_s: i64) -> Self {
        let head = Head::new(TARGETS, version, expires_s);
        Self { head, targets: BTreeMap::new(), delegations: None, other: BTreeMap::new() }
    }

    fn check_fields(&self) -> Result<(), &'static str> {
        self.delegations.as_ref().map_or(Ok(()), Delegations::check)
    }
}

/// A file that is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its length.
    pub length: u64,
    /// Its hashes, hexadecimal, by algorithm.
    pub hashes: BTreeMap<String, String>,
    /// What an application says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

impl Target {
    /// The target that has exactly these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let sha256 = crate::id::ContentHash::of(bytes).to_string();
        let hashes = [("sha256".to_owned(), sha256)].into();
        Self { length: bytes.len() as u64, hashes, custom: None }
    }

    /// Refuses bytes that are not this target.
    ///
    /// # Errors
    /// [`Refused::WrongLength`], [`Refused::WrongHash`], [`Refused::NoHash`].
    pub fn check(&self, path: &str, bytes: &[u8]) -> Result<(), Refused> {
        if self.length != bytes.len() as u64 {
            let (signed_bytes, actual_bytes) = (self.length, bytes.len() as u64);
            return Err(Refused::WrongLength { what: path.to_owned(), signed_bytes, actual_bytes });
        }
        check_hashes(path, &self.hashes, bytes)
    }
}
