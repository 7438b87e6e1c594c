//! What a release of the agent is: a build for one kind of machine, named by hash and length in a short
//! document that is signed as manifests are, and named by targets and director where there is a
//! repository ([`crate::tuf`]). A device takes none that was built for another machine.
//!
//! Programs carry a *mark* ([`mark`]): version and target in plain bytes, so that whoever ships a file
//! need not say, and cannot mistake, what it is; and a program says its own version by it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::id::ContentHash;
use crate::limits::{RELEASE_FILE_MAX_BYTES, RELEASE_MAX_BYTES};
use crate::manifest::{FileRef, SignerKey, SigningKey};

mod mark;
pub use mark::{MARK_BYTES, Mark, NoMark, mark};

/// Separates signatures over releases from any other use of the same key.
const CONTEXT: &[u8] = b"outrigger-release-v1\0";
/// The only format so far.
pub const FORMAT: u32 = 1;

/// A version of the agent, `MAJOR.MINOR.PATCH`; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl ReleaseVersion {
    /// A version from its three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.major, self.minor, self.patch))
    }
}

impl FromStr for ReleaseVersion {
    type Err = InvalidRelease;
    fn from_str(text: &str) -> Result<Self, InvalidRelease> {
        let invalid = || InvalidRelease::Version(text.chars().take(64).collect());
        let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
            true => part.parse().map_err(|_| invalid()),
            false => Err(invalid()),
        };
        let numbers: Vec<u32> = text.split('.').map(number).collect::<Result<_, _>>()?;
        let [major, minor, patch] = numbers.try_into().map_err(|_| invalid())?;
        Ok(Self { major, minor, patch })
    }
}

impl TryFrom<String> for ReleaseVersion {
    type Error = InvalidRelease;
    fn try_from(text: String) -> Result<Self, InvalidRelease> {
        text.parse()
    }
}

impl From<ReleaseVersion> for String {
    fn from(version: ReleaseVersion) -> String {
        version.to_string()
    }
}

/// Why a release is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelease {
    /// Not JSON of this shape, or too large.
    #[error("not a signed release (JSON of at most {RELEASE_MAX_BYTES} bytes)")]
    Malformed,
    /// Of a later format.
    #[error("a release of format {0}, which this program does not know")]
    Format(u32),
    /// Not three numbers.
    #[error("a version of the agent is MAJOR.MINOR.PATCH, not {0:?}")]
    Version(String),
    /// Not the name of a machine.
    #[error("not the name of a kind of machine: {0:?}")]
    Target(String),
    /// Empty, or larger than any may be.
    #[error("a program has 1 to {RELEASE_FILE_MAX_BYTES} bytes, this one {0}")]
    Size(u64),
    /// Signed by a key that is not trusted here.
    #[error("signed by key {0:.16}…, which is not trusted here")]
    UnknownKey(ContentHash),
    /// The signature does not fit.
    #[error("the signature does not fit the release: it was altered or forged")]
    Forged,
}

/// One build of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// [`FORMAT`].
    pub format: u32,
    /// Its version.
    pub version: ReleaseVersion,
    /// What it was built for, as its compiler names it: `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// The program.
    pub program: FileRef,
    /// Devices that run this one well take no older one than this afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<ReleaseVersion>,
}

impl Release {
    /// Reads a release's exact text.
    ///
    /// # Errors
    /// [`InvalidRelease`].
    pub fn from_json(text: &str) -> Result<Self, InvalidRelease> {
        /// What is looked at first: later formats may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_str(text).map_err(|_| InvalidRelease::Malformed)?;
        if format != FORMAT {
            return Err(InvalidRelease::Format(format));
        }
        let release: Self = serde_json::from_str(text).map_err(|_| InvalidRelease::Malformed)?;
        release.check()?;
        Ok(release)
    }

    fn check(&self) -> Result<(), InvalidRelease> {
        check_target(&self.target)?;
        let size = self.program.size_bytes;
        match (1..=RELEASE_FILE_MAX_BYTES).contains(&size) {
            true => Ok(()),
            false => Err(InvalidRelease::Size(size)),
        }
    }

    /// Where it stands in a repository: no model can have such a name.
    pub fn path(&self) -> String {
        path(self.version, &self.target)
    }

    /// Signs it.
    pub fn sign(&self, key: &SigningKey) -> SignedRelease {
        let release = serde_json::to_string(self).expect("strings and numbers are always JSON");
        let signature = key.sign_text(CONTEXT, &release);
        SignedRelease { release, key_id: key.public().key_id(), signature }
    }
}

fn path(version: ReleaseVersion, target: &str) -> String {
    format!("+agent/{version}/{target}.json")
}

/// Names of machines are parts of paths.
fn check_target(target: &str) -> Result<(), InvalidRelease> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_name = (1..=64).contains(&target.len())
        && target.starts_with(|c: char| c.is_ascii_alphanumeric())
        && target.chars().all(inner);
    match is_name {
        true => Ok(()),
        false => Err(InvalidRelease::Target(target.chars().take(64).collect())),
    }
}

/// A release's exact text with one signature, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRelease {
    /// The release's JSON, byte for byte as it was signed.
    pub release: String,
    /// SHA-256 of the signer's public key.
    pub key_id: ContentHash,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

impl SignedRelease {
    /// Reads a signed release, without trusting it yet.
    ///
    /// # Errors
    /// [`InvalidRelease::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidRelease> {
        if bytes.len() > RELEASE_MAX_BYTES {
            return Err(InvalidRelease::Malformed);
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidRelease::Malformed)
    }

    /// The bytes that are stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("three strings are always JSON")
    }

    /// Its name: the hash of the release's exact bytes.
    pub fn id(&self) -> ContentHash {
        ContentHash::of(self.release.as_bytes())
    }

    /// What it says, without trusting it.
    ///
    /// # Errors
    /// [`InvalidRelease`].
    pub fn read(&self) -> Result<Release, InvalidRelease> {
        Release::from_json(&self.release)
    }

    /// The release, once one of `trusted` proves to have signed it.
    ///
    /// # Errors
    /// [`InvalidRelease`].
    pub fn verify(&self, trusted: &[SignerKey]) -> Result<Release, InvalidRelease> {
        let key = trusted.iter().find(|key| key.key_id() == self.key_id);
        let key = key.ok_or(InvalidRelease::UnknownKey(self.key_id))?;
        if !key.has_signed(CONTEXT, &self.release, &self.signature) {
            return Err(InvalidRelease::Forged);
        }
        self.read()
    }
}

#[cfg(test)]
mod tests;
