//! What `outrigger login` leaves behind, in a folder that only its owner may enter: the cloud's
//! CA, the key for its API, the key that signs models, the one that has them measured, and those that open
//! what devices record.

use anyhow::Context;
use link::durable::{self, Access};
use link::pki::chain_from_pem;
use protocol::manifest::SigningKey;
use protocol::measurement::SignedDelegation;
use protocol::token::Token;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use telemetry::key::PrivateKey;

use crate::errors::hinted;
use crate::probe::Address;

/// A private key of this operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyFile {
    name: &'static str,
    what: &'static str,
    hint: &'static str,
}

/// The key that signs models.
pub(crate) const SIGNING_KEY: KeyFile = KeyFile {
    name: "signing.key",
    what: "signing key",
    hint: "restore it from a backup; devices trust only what it signed before",
};
/// The key that orders measurements.
pub(crate) const LAB_KEY: KeyFile = KeyFile {
    name: "lab.key",
    what: "lab key",
    hint: "remove it, and have a new one delegated: outrigger lab delegate",
};
/// The key that opens what devices seal. Only its public half leaves this machine.
const ANALYTICS_FILE: &str = "analytics.key";
/// Which cloud the CA in ca.pem is of: known also after a logout.
const CA_OF_FILE: &str = "ca-of";
/// What an operator allows the lab key.
const DELEGATION_FILE: &str = "lab.json";

/// Where a cloud is and how to call it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// `HOST:PORT`.
    pub(crate) cloud: String,
    /// The public half of the key.
    pub(crate) key_id: String,
    /// Its secret, hexadecimal.
    pub(crate) secret: String,
    /// When it ends, where it is of a sign-in; Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ends_at_s: Option<i64>,
}

impl Credentials {
    /// A key of a cloud.
    pub(crate) fn new(cloud: &Address, key: &Token) -> Self {
        Self {
            cloud: cloud.to_string(),
            key_id: key.id.clone(),
            secret: key.secret.reveal(),
            ends_at_s: None,
        }
    }
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
        self.write(CA_OF_FILE, format!("{}\n", credentials.cloud).as_bytes())?;
        self.write("credentials.json", &serde_json::to_vec_pretty(credentials)?)
    }

    /// Where the cloud is, how to call it, and its CA.
    pub(crate) fn login(&self) -> anyhow::Result<(Credentials, CertificateDer<'static>)> {
        let absent = || {
            let hint = "outrigger login --cloud HOST:PORT --key-file FILE, or --oidc";
            hinted("this operator is not logged in to any cloud", hint)
        };
        let credentials = self.read("credentials.json")?.ok_or_else(absent)?;
        let credentials = serde_json::from_slice(&credentials).context("credentials.json")?;
        let pem = self.read("ca.pem")?.ok_or_else(absent)?;
        let ca = chain_from_pem(&pem)?.into_iter().next().ok_or_else(absent)?;
        Ok((credentials, ca))
    }

    /// The CA of a cloud that this operator was logged in to last.
    pub(crate) fn known_ca(&self, cloud: &str) -> anyhow::Result<Option<CertificateDer<'static>>> {
        let of = match self.read(CA_OF_FILE)? {
            Some(of) => String::from_utf8_lossy(&of).trim().to_owned(),
            None => match self.read("credentials.json")? {
                Some(json) => {
                    serde_json::from_slice::<Credentials>(&json).context("credentials.json")?.cloud
                }
                None => return Ok(None),
            },
        };
        let Some(pem) = self.read("ca.pem")?.filter(|_| of == cloud) else { return Ok(None) };
        Ok(chain_from_pem(&pem)?.into_iter().next())
    }

    /// Forgets the key, and nothing else: whose CA it was stays known.
    pub(crate) fn forget_login(&self) -> anyhow::Result<()> {
        let path = self.path("credentials.json");
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// A key, if there is one.
    pub(crate) fn key(&self, which: KeyFile) -> anyhow::Result<Option<SigningKey>> {
        let KeyFile { name, what, hint } = which;
        let Some(text) = self.read(name)? else { return Ok(None) };
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim_ascii(), &mut seed)
            .map_err(|_| hinted(format!("{} holds no {what}", self.path(name).display()), hint))?;
        Ok(Some(SigningKey::from_seed(&seed)))
    }

    /// A key, made where there is none.
    pub(crate) fn ensure_key(&self, which: KeyFile) -> anyhow::Result<SigningKey> {
        if let Some(key) = self.key(which)? {
            return Ok(key);
        }
        let seed = link::entropy();
        self.write(which.name, format!("{}\n", hex::encode(seed)).as_bytes())?;
        Ok(SigningKey::from_seed(&seed))
    }

    /// The analytics keys of this operator, the one that devices seal for first, then those before it.
    pub(crate) fn analytics_keys(&self) -> anyhow::Result<Vec<PrivateKey>> {
        let mut keys = Vec::new();
        for name in self.analytics_files()? {
            let text = self.read(&name)?.unwrap_or_default();
            let key = PrivateKey::from_hex(&String::from_utf8_lossy(&text));
            let hint = "restore it from a backup: nothing else opens what was sealed for it";
            keys.push(key.map_err(|_| {
                hinted(format!("{} holds no analytics key", self.path(&name).display()), hint)
            })?);
        }
        Ok(keys)
    }

    /// The newest first.
    fn analytics_files(&self) -> anyhow::Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Ok(Vec::new()) };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let is_key = |name: &String| name.starts_with("analytics") && name.ends_with(".key");
        let mut names: Vec<String> = names.filter(is_key).collect();
        names.sort_by_key(|name| (name != ANALYTICS_FILE, name.clone()));
        Ok(names)
    }

    /// Makes an analytics key; the one before it stays beside it.
    pub(crate) fn make_analytics_key(
        &self,
        before: Option<&PrivateKey>,
    ) -> anyhow::Result<PrivateKey> {
        if let Some(before) = before {
            let id = before.public().id().to_string();
            self.write(&format!("analytics-{}.key", &id[..16]), before.to_hex().as_bytes())?;
        }
        let key = PrivateKey::from_entropy(&link::entropy());
        self.write(ANALYTICS_FILE, format!("{}\n", key.to_hex()).as_bytes())?;
        Ok(key)
    }

    /// What an operator allowed this machine's lab key, if anything was kept.
    pub(crate) fn delegation(&self) -> anyhow::Result<Option<SignedDelegation>> {
        let json = self.read(DELEGATION_FILE)?;
        json.map(|json| serde_json::from_slice(&json)).transpose().context(DELEGATION_FILE)
    }

    /// Keeps what an operator allows this machine's lab key.
    pub(crate) fn keep_delegation(&self, delegation: &SignedDelegation) -> anyhow::Result<()> {
        self.write(DELEGATION_FILE, &serde_json::to_vec_pretty(delegation)?)
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
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
    fn the_ca_of_a_cloud_is_known_after_a_logout_too() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { folder: folder.path().join("c") };
        let cloud = Address::parse("cloud.example:1").unwrap();
        assert!(config.known_ca("cloud.example:1").unwrap().is_none());
        let key = Token::from_entropy([1; 8], [2; 32], protocol::id::ContentHash::of(b"ca"));
        let ca = CertificateDer::from(b"a certificate".to_vec());
        let credentials = Credentials { ends_at_s: Some(7), ..Credentials::new(&cloud, &key) };
        config.keep(&credentials, &ca).unwrap();
        let kept = config.login().unwrap().0;
        assert_eq!((kept.cloud.as_str(), kept.ends_at_s), ("cloud.example:1", Some(7)));
        config.forget_login().unwrap();
        assert!(config.login().is_err() && config.forget_login().is_err());
        assert_eq!(config.known_ca("cloud.example:1").unwrap(), Some(ca.clone()));
        assert!(config.known_ca("cloud.example:2").unwrap().is_none());
        config.keep(&credentials, &ca).unwrap();
        std::fs::remove_file(config.path(CA_OF_FILE)).unwrap(); // as it was before there were sign-ins
        assert_eq!(config.known_ca("cloud.example:1").unwrap(), Some(ca));
        assert!(config.known_ca("cloud.example:2").unwrap().is_none());
    }

    #[test]
    fn the_signing_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { folder: folder.path().join("c") };
        assert!(config.key(SIGNING_KEY).unwrap().is_none());
        let made = config.ensure_key(SIGNING_KEY).unwrap().public();
        assert_eq!(config.ensure_key(SIGNING_KEY).unwrap().public(), made);
        assert_ne!(config.ensure_key(LAB_KEY).unwrap().public(), made);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&config.folder), 0o700);
            assert_eq!(mode(&config.path("signing.key")), 0o600);
        }
        std::fs::write(config.path("signing.key"), "junk").unwrap();
        assert!(config.key(SIGNING_KEY).is_err());
        assert!(config.login().unwrap_err().to_string().contains("not logged in"));
    }
}
