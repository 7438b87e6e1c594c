//! What `outrigger login` leaves behind, in a folder that only its owner may enter: the cloud's
//! CA, the key for its API, and the key that signs models.

use anyhow::Context;
use link::durable::{self, Access};
use link::pki::chain_from_pem;
use protocol::manifest::SigningKey;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::errors::hinted;

/// Where a cloud is and how to call it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// `HOST:PORT`.
    pub(crate) cloud: String,
    /// The public half of the key.
    pub(crate) key_id: String,
    /// Its secret, hexadecimal.
    pub(crate) secret: String,
}

/// The configuration folder.
pub(crate) struct Config {
    folder: PathBuf,
}

impl Config {
    /// `OUTRIGGER_CONFIG_DIR`, else `outrigger` in the user's configuration folder.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = set("OUTRIGGER_CONFIG_DIR").map(PathBuf::from).or_else(|| {
            let xdg = set("XDG_CONFIG_HOME").map(PathBuf::from);
            let base = xdg.or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")));
            base.map(|base| base.join("outrigger"))
        });
        let folder = folder.ok_or_else(|| {
            hinted("there is no place for the configuration", "set OUTRIGGER_CONFIG_DIR")
        })?;
        Ok(Self { folder })
    }

    /// Keeps what a login learned.
    pub(crate) fn keep(
        &self,
        credentials: &Credentials,
        ca: &CertificateDer<'_>,
    ) -> anyhow::Result<()> {
        let pem = link::pki::chain_to_pem(std::slice::from_ref(ca));
        self.write("ca.pem", pem.as_bytes())?;
        self.write("credentials.json", &serde_json::to_vec_pretty(credentials)?)
    }

    /// Where the cloud is, how to call it, and its CA.
    pub(crate) fn login(&self) -> anyhow::Result<(Credentials, CertificateDer<'static>)> {
        let absent = || {
            let hint = "outrigger login --cloud HOST:PORT --key-file FILE";
            hinted("this operator is not logged in to any cloud", hint)
        };
        let credentials = self.read("credentials.json")?.ok_or_else(absent)?;
        let credentials = serde_json::from_slice(&credentials).context("credentials.json")?;
        let pem = self.read("ca.pem")?.ok_or_else(absent)?;
        let ca = chain_from_pem(&pem)?.into_iter().next().ok_or_else(absent)?;
        Ok((credentials, ca))
    }

    /// The signing key, if there is one.
    pub(crate) fn signing_key(&self) -> anyhow::Result<Option<SigningKey>> {
        let Some(text) = self.read("signing.key")? else { return Ok(None) };
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim_ascii(), &mut seed).map_err(|_| {
            let path = self.path("signing.key");
            let what = format!("{} holds no signing key", path.display());
            hinted(what, "restore it from a backup; devices trust only what it signed before")
        })?;
        Ok(Some(SigningKey::from_seed(&seed)))
    }

    /// The signing key, made where there is none.
    pub(crate) fn ensure_signing_key(&self) -> anyhow::Result<SigningKey> {
        if let Some(key) = self.signing_key()? {
            return Ok(key);
        }
        let seed = link::entropy();
        self.write("signing.key", format!("{}\n", hex::encode(seed)).as_bytes())?;
        Ok(SigningKey::from_seed(&seed))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        durable::create_private_folder(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))?;
        write_private(&self.path(name), bytes)
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    durable::write(path, bytes, Access::Private)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signing_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { folder: folder.path().join("c") };
        assert!(config.signing_key().unwrap().is_none());
        let made = config.ensure_signing_key().unwrap().public();
        assert_eq!(config.ensure_signing_key().unwrap().public(), made);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&config.folder), 0o700);
            assert_eq!(mode(&config.path("signing.key")), 0o600);
        }
        std::fs::write(config.path("signing.key"), "junk").unwrap();
        assert!(config.signing_key().is_err());
        assert!(config.login().unwrap_err().to_string().contains("not logged in"));
    }
}
