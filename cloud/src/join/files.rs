//! Who this node is: its key, made here and never sent; its certificate; and the fleet CA's. The
//! certificate is written last: it is the commit.

use link::durable::{self, Access};
use link::pki::{self, DeviceCertificate, DeviceKey, PkiError};
use link::tls::Identity;
use protocol::id::InvalidName;
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::PathBuf;

const KEY: &str = "node.key";
const CHAIN: &str = "node.pem";
const CA: &str = "ca.pem";

/// Why the node's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds no key or certificate.
    #[error("the node's identity is damaged; remove its folder and join anew")]
    Damaged(#[from] PkiError),
    /// The certificate names no node.
    #[error("the node's certificate names no node")]
    Name(#[from] InvalidName),
    /// There is no certificate in the file.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
}

/// The files, in a folder of their own.
#[derive(Debug, Clone)]
pub(super) struct Files(PathBuf);

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FilesError> {
        let path = self.0.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FilesError::Io { path, source }),
        }
    }

    fn require(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        self.read(name)?.ok_or_else(|| FilesError::Empty(self.0.join(name)))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), FilesError> {
        let path = self.0.join(name);
        let written = durable::write(&path, text.as_bytes(), Access::Private);
        written.map_err(|source| FilesError::Io { path, source })
    }

    pub(super) fn has_joined(&self) -> Result<bool, FilesError> {
        Ok(self.read(CHAIN)?.is_some())
    }

    /// The key; made on the first call and kept, so that an interrupted enrolment can be repeated
    /// with the same token.
    pub(super) fn key(&self) -> Result<DeviceKey, FilesError> {
        if let Some(pem) = self.read(KEY)? {
            return Ok(DeviceKey::from_pem(&String::from_utf8_lossy(&pem))?);
        }
        let key = DeviceKey::generate()?;
        self.write(KEY, &key.to_pem())?;
        Ok(key)
    }

    pub(super) fn keep(
        &self,
        chain: &[CertificateDer<'_>],
        ca: &CertificateDer<'_>,
    ) -> Result<(), FilesError> {
        self.write(CA, &pki::chain_to_pem(std::slice::from_ref(ca)))?;
        self.keep_chain(chain)
    }

    pub(super) fn keep_chain(&self, chain: &[CertificateDer<'_>]) -> Result<(), FilesError> {
        self.write(CHAIN, &pki::chain_to_pem(chain))
    }

    pub(super) fn identity(&self) -> Result<Identity, FilesError> {
        let chain = pki::chain_from_pem(&self.require(CHAIN)?)?;
        if chain.is_empty() {
            return Err(FilesError::Empty(self.0.join(CHAIN)));
        }
        Ok(Identity { chain, key: pki::key_from_pem(&self.require(KEY)?)?.into() })
    }

    /// What the control node called it: its certificate's subject.
    pub(super) fn name(&self) -> Result<String, FilesError> {
        let Identity { chain, .. } = self.identity()?;
        let leaf = DeviceCertificate::parse(chain.first().map_or(&[], |leaf| leaf))?;
        Ok(leaf.device.to_string())
    }

    /// The fleet CA; behind it those whose place it is taking. There is one at least.
    pub(super) fn cas(&self) -> Result<Vec<CertificateDer<'static>>, FilesError> {
        let cas = pki::chain_from_pem(&self.require(CA)?)?;
        if cas.is_empty() { Err(FilesError::Empty(self.0.join(CA))) } else { Ok(cas) }
    }

    /// The fleet CA alone: who may speak for the control node.
    pub(super) fn ca(&self) -> Result<CertificateDer<'static>, FilesError> {
        Ok(self.cas()?.swap_remove(0))
    }

    /// Goes with the fleet CA, where the control node proved that another one took its place, or that
    /// this is done everywhere. Whether anything changed.
    pub(super) fn follow(&self, shown: &[CertificateDer<'_>]) -> Result<bool, FilesError> {
        let known = self.cas()?;
        let followed = pki::followed(&known, shown);
        if followed != known {
            self.write(CA, &pki::chain_to_pem(&followed))?;
        }
        Ok(followed != known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_the_certificate_is_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path().to_owned());
        let key = files.key().unwrap().hash();
        assert_eq!(files.key().unwrap().hash(), key);
        assert!(!files.has_joined().unwrap());
        assert!(matches!(files.identity(), Err(FilesError::Empty(_))));
        std::fs::write(folder.path().join(CHAIN), "").unwrap();
        assert!(matches!(files.identity(), Err(FilesError::Empty(_))), "damaged is not joined");
    }
}
