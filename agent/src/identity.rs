//! Who this device is: its key ([`crate::key`]), made here and never sent; its certificate; the fleet CA; and what
//! enrolment said about whom to trust. `enrolment.json` is written last: it is the commit.

use crate::clock::TIME_FILE;
use crate::key::Key;
use crate::key::token::{TokenError, TokenKey};
use crate::key::uri::{InvalidUri, KeyUri};
use crate::peers::NAMED_FILE;
use crate::uplink::LISTED_FILE;
use ::link::durable::{self, Access};
use ::link::pki::{self, DeviceKey, PkiError};
use ::link::tls::Identity;
use protocol::id::{ContentHash, DeviceId};
use protocol::manifest::SignerKey;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const KEY_FILE: &str = "device.key";
/// Where the key is, if it is not in a file: a PKCS#11 URI.
pub(crate) const KEY_URI_FILE: &str = "device.key-uri";
const CHAIN_FILE: &str = "device.pem";
const CA_FILE: &str = "ca.pem";
/// The root of the fleet's repository, as enrolment gave it.
const ROOT_FILE: &str = "root.json";
pub(crate) const ENROLMENT_FILE: &str = "enrolment.json";

/// Why the identity cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("this device is not enrolled")]
    NotEnrolled,
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the device's key cannot be used")]
    Token(#[from] TokenError),
}

impl IdentityError {
    /// What a person can do about it, where more is known than that it failed.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Token(error) => error.hint(),
            Self::Pki(PkiError::Elsewhere(error)) => {
                error.downcast_ref::<TokenError>().map_or("", TokenError::hint)
            }
            _ => "",
        }
    }
}

/// What enrolment decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolment {
    /// The cloud, as `HOST:PORT`.
    pub(crate) cloud: String,
    /// The device's name in the fleet.
    pub(crate) device: DeviceId,
    /// SHA-256 of the fleet CA at that time, by which the fleet is known here for good.
    pub(crate) ca_hash: ContentHash,
    /// Hexadecimal public keys that may sign what is installed here.
    signers: Vec<String>,
}

impl Enrolment {
    pub(crate) fn new(
        cloud: &str,
        device: DeviceId,
        ca_hash: ContentHash,
        signers: &[SignerKey],
    ) -> Self {
        let signers = signers.iter().map(|k| hex::encode(k.0)).collect();
        Self { cloud: cloud.to_owned(), device, ca_hash, signers }
    }

    /// The keys that may sign what is installed here.
    pub(crate) fn signers(&self) -> Vec<SignerKey> {
        let decode = |text: &String| SignerKey::from_slice(&hex::decode(text).ok()?);
        self.signers.iter().filter_map(decode).collect()
    }
}

/// The identity files in a state folder.
#[derive(Debug, Clone)]
pub(crate) struct IdentityFiles(PathBuf, Arc<Mutex<Option<Arc<TokenKey>>>>);

impl IdentityFiles {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.to_owned(), Arc::default())
    }

    /// The state folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, IdentityError> {
        let path = self.0.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(IdentityError::File { path, source }),
        }
    }

    fn require(&self, name: &str) -> Result<Vec<u8>, IdentityError> {
        self.read(name)?.ok_or(IdentityError::NotEnrolled)
    }

    fn write(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), IdentityError> {
        let path = self.0.join(name);
        durable::write(&path, bytes, access).map_err(|source| IdentityError::File { path, source })
    }

    /// This device's key; made on the first call and kept, so that an interrupted enrolment can
    /// be repeated with the same token.
    pub(crate) fn key(&self) -> Result<Key, IdentityError> {
        if let Some(key) = self.kept_key()? {
            return Ok(key);
        }
        self.make_folder()?;
        let key = DeviceKey::generate()?;
        self.write(KEY_FILE, key.to_pem().as_bytes(), Access::Private)?;
        Ok(Key::File(Box::new(key)))
    }

    fn make_folder(&self) -> Result<(), IdentityError> {
        durable::create_private_folder(&self.0)
            .map_err(|source| IdentityError::File { path: self.0.clone(), source })
    }

    /// From now on this device's key is the one in a token; it is made there where there is none.
    pub(crate) fn use_token(&self, uri: &KeyUri) -> Result<Key, IdentityError> {
        let mut held = self.held();
        *held = None;
        let key = TokenKey::find_or_make(uri)?;
        self.make_folder()?;
        self.write(KEY_URI_FILE, format!("{uri}\n").as_bytes(), Access::Private)?;
        *held = Some(key.clone());
        Ok(Key::Token(key))
    }

    /// Where the key is, if it is in a token.
    pub(crate) fn key_uri(&self) -> Result<Option<KeyUri>, IdentityError> {
        let Some(text) = self.read(KEY_URI_FILE)? else { return Ok(None) };
        let path = self.0.join(KEY_URI_FILE);
        let uri = String::from_utf8_lossy(&text).parse();
        uri.map(Some).map_err(|e: InvalidUri| IdentityError::Damaged { path, source: e.into() })
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<TokenKey>>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This device's key, if it was made already.
    pub(crate) fn kept_key(&self) -> Result<Option<Key>, IdentityError> {
        if let Some(uri) = self.key_uri()? {
            return Ok(Some(Key::Token(durable::aside(|| self.in_token(&uri))?)));
        }
        let Some(pem) = self.read(KEY_FILE)? else { return Ok(None) };
        Ok(Some(Key::File(DeviceKey::from_pem(&String::from_utf8_lossy(&pem))?.into())))
    }

    /// A token is opened once, by whoever comes first; modules take it ill when two do.
    fn in_token(&self, uri: &KeyUri) -> Result<Arc<TokenKey>, TokenError> {
        let mut held = self.held();
        if let Some(key) = &*held {
            return Ok(key.clone());
        }
        Ok(held.insert(TokenKey::find(uri)?).clone())
    }

    /// Lets go of the token that holds the key, if one does: the process ends.
    pub(crate) fn let_go(&self) {
        if let Some(key) = self.held().take() {
            key.close();
        }
    }

    /// Keeps what enrolment brought.
    pub(crate) fn keep(
        &self,
        enrolment: &Enrolment,
        chain: &[CertificateDer<'_>],
        ca: &CertificateDer<'_>,
    ) -> Result<(), IdentityError> {
        self.keep_chain(chain)?;
        self.write(
            CA_FILE,
            pki::chain_to_pem(std::slice::from_ref(ca)).as_bytes(),
            Access::Public,
        )?;
        let json = serde_json::to_vec_pretty(enrolment).expect("strings are always JSON");
        self.write(ENROLMENT_FILE, &json, Access::Private)
    }

    /// Keeps the root that enrolment gave; where it gave none, one of a former enrolment goes.
    pub(crate) fn keep_root(&self, root: &[u8]) -> Result<(), IdentityError> {
        if !root.is_empty() {
            return self.write(ROOT_FILE, root, Access::Public);
        }
        let path = self.0.join(ROOT_FILE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    /// The root that enrolment gave, if it gave one.
    pub(crate) fn root(&self) -> Result<Option<Vec<u8>>, IdentityError> {
        self.read(ROOT_FILE)
    }

    /// Keeps a fresh certificate chain for the same key.
    pub(crate) fn keep_chain(&self, chain: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
        self.write(CHAIN_FILE, pki::chain_to_pem(chain).as_bytes(), Access::Public)
    }

    /// Removes all of it, the commit first. Whether there was anything.
    pub(crate) fn remove(&self) -> Result<bool, IdentityError> {
        let failed = |source| IdentityError::File { path: self.0.clone(), source };
        let mut found = durable::sweep(&self.0).map_err(failed)? > 0; // half-written keys too
        let rest = [
            KEY_FILE,
            KEY_URI_FILE,
            CHAIN_FILE,
            CA_FILE,
            ROOT_FILE,
            TIME_FILE,
            LISTED_FILE,
            NAMED_FILE,
        ];
        for name in [ENROLMENT_FILE].into_iter().chain(rest) {
            let path = self.0.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => found = true,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(IdentityError::File { path, source }),
            }
        }
        durable::sync_folder(&self.0)
            .map_err(|source| IdentityError::File { path: self.0.clone(), source })?;
        Ok(found)
    }

    /// What enrolment decided, if it took place.
    pub(crate) fn enrolment(&self) -> Result<Option<Enrolment>, IdentityError> {
        let Some(bytes) = self.read(ENROLMENT_FILE)? else { return Ok(None) };
        let path = self.0.join(ENROLMENT_FILE);
        let damaged = |e: serde_json::Error| IdentityError::Damaged { path, source: e.into() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// The certificate chain.
    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        Ok(pki::chain_from_pem(&self.require(CHAIN_FILE)?)?)
    }

    /// The certificate chain with its key, for TLS.
    pub(crate) fn tls(&self) -> Result<Identity, IdentityError> {
        let chain = self.chain()?;
        let key = self.kept_key()?.ok_or(IdentityError::NotEnrolled)?;
        Ok(Identity { chain, key: key.tls()? })
    }

    /// The fleet CA; behind it those whose place it is taking, which inference nodes may still show.
    pub(crate) fn cas(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let cas = pki::chain_from_pem(&self.require(CA_FILE)?)?;
        if cas.is_empty() { Err(IdentityError::NotEnrolled) } else { Ok(cas) }
    }

    /// The fleet CA alone: who may speak for the control node.
    pub(crate) fn ca(&self) -> Result<CertificateDer<'static>, IdentityError> {
        Ok(self.cas()?.swap_remove(0))
    }

    /// Goes with the fleet CA, where a verified server proved that another one took its place, or that
    /// this is done everywhere. Whether the CA is another one now.
    pub(crate) fn follow(&self, shown: &[CertificateDer<'_>]) -> Result<bool, IdentityError> {
        let known = self.cas()?;
        let followed = pki::followed(&known, shown);
        if followed != known {
            self.write(CA_FILE, pki::chain_to_pem(&followed).as_bytes(), Access::Public)?;
        }
        Ok(followed.first() != known.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let files = IdentityFiles::new(&folder.path().join("state"));
        let first = files.key().unwrap().hash();
        assert_eq!(files.key().unwrap().hash(), first);
        assert!(files.enrolment().unwrap().is_none());
        assert!(matches!(files.tls(), Err(IdentityError::NotEnrolled)));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(files.0.join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_enrolment_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = IdentityFiles::new(folder.path());
        std::fs::write(folder.path().join(ENROLMENT_FILE), "{").unwrap();
        assert!(matches!(files.enrolment(), Err(IdentityError::Damaged { .. })));
    }
}
