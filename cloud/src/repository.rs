//! The repository of models, as the cloud has it: files that operators signed, and the three keys that
//! are online here (snapshot, timestamp, director). `fleet::repository` decides; this keeps the keys, one
//! file each (`D/repository/ROLE-N.key`, 0600), and signs anew what runs out while somebody asks.

use fleet::repository::{self, ONLINE, OnlineKeys};
use link::durable::{self, Access};
use protocol::id::DeviceId;
use protocol::limits::TUF_ROLE_KEYS_MAX;
use protocol::manifest::SigningKey;
use protocol::tuf::install::target_path;
use protocol::tuf::introduction::Introduction;
use protocol::tuf::key::Key;
use protocol::tuf::metadata::TIMESTAMP;
use protocol::{id::Variant, wire};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::state::now_s;
use crate::store::Store;
use crate::store::audit::By;
use crate::store::repository::TakeError;

/// The keys, and where they are.
pub struct Repository {
    /// Nowhere on an inference node, which signs nothing.
    folder: Option<PathBuf>,
    keys: RwLock<OnlineKeys>,
}

impl Repository {
    /// Reads the keys in a folder; the first ones are made there.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds no key.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut keys: BTreeMap<&'static str, Vec<SigningKey>> = BTreeMap::new();
        for role in ONLINE {
            let mut own = Vec::new();
            while let Some(key) = read(&key_file(folder, role, own.len() + 1))? {
                own.push(key);
            }
            keys.insert(role, own);
        }
        let folder = Some(folder.to_owned());
        let repository = Self { folder, keys: RwLock::new(OnlineKeys(keys)) };
        for role in ONLINE {
            if repository.newest_key(role).is_none() {
                repository.make_key(role)?;
            }
        }
        Ok(repository)
    }

    /// Without keys: an inference node's.
    pub fn elsewhere() -> Self {
        Self { folder: None, keys: RwLock::new(OnlineKeys(BTreeMap::new())) }
    }

    fn keys(&self) -> RwLockReadGuard<'_, OnlineKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The public half of the newest key of a role: the one that root should name.
    pub fn newest_key(&self, role: &str) -> Option<Key> {
        self.keys().0.get(role)?.last().map(SigningKey::tuf_key)
    }

    /// Makes one more key for a role; `None` where there are too many. It signs once root names it; older
    /// ones are kept, for until then.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn make_key(&self, role: &'static str) -> io::Result<Option<Key>> {
        let folder =
            self.folder.as_ref().ok_or_else(|| io::Error::other("no keys are kept here"))?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let own = keys.0.entry(role).or_default();
        if own.len() >= TUF_ROLE_KEYS_MAX {
            return Ok(None);
        }
        let seed = link::entropy();
        let path = key_file(folder, role, own.len() + 1);
        durable::write(&path, format!("{}\n", hex::encode(seed)).as_bytes(), Access::Private)?;
        let key = SigningKey::from_seed(&seed);
        let public = key.tuf_key();
        own.push(key);
        Ok(Some(public))
    }

    /// Takes files in that somebody signed with offline keys, by role.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn take(
        &self,
        store: &Store,
        by: &By,
        offered: &repository::Newest,
        introduction: Option<&Introduction>,
    ) -> Result<Vec<repository::File>, TakeError> {
        store.change_repository(Some(by), by.now_s, introduction, |newest| {
            repository::take(newest, offered, &self.keys(), by.now_s)
        })
    }

    /// A file that a device asks for; what runs out is signed anew before.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn file(&self, store: &Store, name: &str) -> Result<Option<Vec<u8>>, TakeError> {
        if name == format!("{TIMESTAMP}.json") {
            let now_s = now_s();
            store.change_repository(None, now_s, None, |newest| {
                repository::renew(newest, &self.keys(), now_s)
            })?;
        }
        Ok(store.repository_file(name)?)
    }

    /// What a device is told beside its desired state; nothing where there is no repository.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn for_device(
        &self,
        store: &Store,
        device: &DeviceId,
        desired: &wire::DesiredState,
    ) -> Result<Option<wire::Repository>, TakeError> {
        let Some(introduction) = store.introduction()? else { return Ok(None) };
        let manifests = desired.models.iter().filter_map(manifest);
        let manifests = manifests.chain(desired.releases.iter().filter_map(release)).collect();
        let now_s = now_s();
        let directed = store.direct(device, |newest, last| {
            repository::direct(newest, &self.keys(), device, &manifests, last, now_s)
        })?;
        let directed = directed.unwrap_or_default().into();
        let version = store.newest_snapshot()?;
        Ok(Some(wire::Repository { introduction: introduction.into(), directed, version }))
    }
}

/// The path of a wanted model, and its manifest.
fn manifest(model: &wire::DesiredModel) -> Option<(String, Vec<u8>)> {
    let signed = protocol::manifest::SignedManifest::from_json(&model.signed_manifest).ok()?;
    let (name, version) = (model.name.parse().ok()?, model.version.try_into().ok()?);
    Some((target_path(&name, version, Variant::Edge), signed.manifest.into_bytes()))
}

/// The path of a wanted release of the agent, and its text.
fn release(signed: &bytes::Bytes) -> Option<(String, Vec<u8>)> {
    let signed = protocol::release::SignedRelease::from_json(signed).ok()?;
    Some((signed.read().ok()?.path(), signed.release.into_bytes()))
}

fn key_file(folder: &Path, role: &str, number: usize) -> PathBuf {
    folder.join(format!("{role}-{number}.key"))
}

fn read(path: &Path) -> io::Result<Option<SigningKey>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed)
        .map_err(|_| io::Error::other(format!("{} holds no key", path.display())))?;
    Ok(Some(SigningKey::from_seed(&seed)))
}
