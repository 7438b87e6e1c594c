//! Names: of models, their versions, content hashes and devices. Parsing is the only way to make
//! one, so whoever holds a name holds a valid one.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::limits::NAME_MAX_BYTES;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Empty or longer than [`NAME_MAX_BYTES`].
    #[error("a {kind} has 1 to {NAME_MAX_BYTES} characters, this one has {len}")]
    Length {
        /// What was parsed.
        kind: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A character outside `a-z A-Z 0-9 . _ -`, or a leading dot or dash.
    #[error(
        "a {kind} holds only letters, digits, '.', '_' and '-', and starts with a letter or digit: {text:?}"
    )]
    Character {
        /// What was parsed.
        kind: &'static str,
        /// The offending text.
        text: String,
    },
    /// Not 64 lower-case hexadecimal digits.
    #[error("a content hash is 64 lower-case hexadecimal digits (SHA-256)")]
    Hash,
    /// Not a whole number of at least 1.
    #[error("a version is a whole number of at least 1, not {0:?}")]
    Version(String),
}

fn check_name(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > NAME_MAX_BYTES {
        return Err(InvalidName::Length { kind, len: text.len() });
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner) {
        return Ok(());
    }
    Err(InvalidName::Character { kind, text: text.to_owned() })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_name($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                check_name($kind, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a model. Safe as a file name and in a URL path.
    ModelName,
    "model name"
);
name_type!(
    /// The name of a device, chosen by the cloud at enrolment.
    DeviceId,
    "device id"
);
name_type!(
    /// The name of an inference node, chosen by the control node when it joins.
    NodeId,
    "node id"
);

impl NodeId {
    /// What agents call it in TLS: nobody else's certificate bears this name, and its own bears no
    /// name of the control node.
    pub fn server_name(&self) -> String {
        format!("{self}.node.outrigger.internal")
    }
}

name_type!(
    /// The name of a tenant: whom a key and a device belong to.
    TenantName,
    "tenant name"
);

impl Default for TenantName {
    /// The tenant of whatever names none.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

name_type!(
    /// The name of a roll-out, chosen by the cloud when it is planned.
    RolloutId,
    "roll-out id"
);
name_type!(
    /// The name of a question to a device, chosen by the cloud.
    QuestionId,
    "question id"
);
name_type!(
    /// The name of a group of devices: a query that was kept.
    GroupName,
    "group name"
);
name_type!(
    /// The name of a site: devices that are near each other, and may carry chunks to each other.
    SiteName,
    "site name"
);

impl Default for SiteName {
    /// The site of whoever names none.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// A version of a model: a number from 1 that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Version(u64);

impl Version {
    /// The first version of every model.
    pub const FIRST: Version = Version(1);

    /// `number`, unless it is 0.
    pub fn new(number: u64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Version {
    type Error = InvalidName;
    fn try_from(number: u64) -> Result<Self, InvalidName> {
        Self::new(number).ok_or_else(|| InvalidName::Version(number.to_string()))
    }
}

impl From<Version> for u64 {
    fn from(version: Version) -> u64 {
        version.0
    }
}

impl FromStr for Version {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let number: u64 = text.parse().map_err(|_| InvalidName::Version(text.to_owned()))?;
        Self::try_from(number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which build of a version: the compressed one for devices, or the larger one for the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Runs on devices.
    Edge,
    /// Runs in the cloud and answers what devices defer.
    Cloud,
}

impl Variant {
    /// `edge` or `cloud`.
    pub fn as_str(self) -> &'static str {
        match self {
            Variant::Edge => "edge",
            Variant::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Variant {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "edge" => Ok(Variant::Edge),
            "cloud" => Ok(Variant::Cloud),
            _ => Err(InvalidName::Character { kind: "variant", text: text.to_owned() }),
        }
    }
}

/// The SHA-256 of some bytes: the name of a blob, and of a bundle (the hash of its manifest).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A hash from its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for ContentHash {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
            return Err(InvalidName::Hash);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for ContentHash {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        hash.to_string()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// Hashes bytes as they arrive.
#[derive(Clone)]
pub struct Hasher(ring::digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken in.
    pub fn finish(self) -> ContentHash {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        ContentHash(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["fashion", "a", "M-1_x.y", &"a".repeat(128)] {
            assert!(good.parse::<ModelName>().is_ok(), "{good}");
        }
        for bad in ["", "..", ".x", "-x", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_start_at_one() {
        assert_eq!("7".parse::<Version>().map(Version::get), Ok(7));
        for bad in ["0", "-1", "1.0", "", "x"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hash_of_abc_is_the_published_one() {
        // FIPS 180-4, example for SHA-256.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ContentHash::of(b"abc").to_string(), expected);
        assert_eq!(expected.parse(), Ok(ContentHash::of(b"abc")));
        assert!(expected.to_uppercase().parse::<ContentHash>().is_err());
    }
}
