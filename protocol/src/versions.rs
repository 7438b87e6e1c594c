//! Which of a model's versions answer: the newest ones, all, or listed ones.

use crate::id::Version;
use crate::limits::LISTED_VERSIONS_MAX_COUNT;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Which versions of a model answer side by side. As text: `latest 2`, `all`, `1 3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VersionPolicy {
    /// The newest ones, so many.
    Latest(u32),
    /// Every one.
    All,
    /// These, where they are there.
    Listed(BTreeSet<Version>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// The versions that answer, of all that are there, in order.
    pub fn of(&self, all: impl DoubleEndedIterator<Item = Version>) -> BTreeSet<Version> {
        match self {
            Self::All => all.collect(),
            Self::Listed(listed) => all.filter(|version| listed.contains(version)).collect(),
            Self::Latest(count) => all.rev().take(*count as usize).collect(),
        }
    }
}

/// Not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no version policy; write \"all\", \"latest N\", or up to {LISTED_VERSIONS_MAX_COUNT} versions"
)]
pub struct InvalidPolicy(String);

impl FromStr for VersionPolicy {
    type Err = InvalidPolicy;
    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let invalid = || InvalidPolicy(text.chars().take(64).collect());
        let mut words = text.split_whitespace().peekable();
        match words.peek() {
            Some(&"all") if text.trim() == "all" => Ok(Self::All),
            Some(&"latest") => {
                let count = words.nth(1).and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                let count = count.filter(|_| words.next().is_none());
                count.map(Self::Latest).ok_or_else(invalid)
            }
            _ => {
                let listed: Result<BTreeSet<Version>, _> = words.map(str::parse).collect();
                let listed = listed.map_err(|_| invalid())?;
                let fits = (1..=LISTED_VERSIONS_MAX_COUNT).contains(&listed.len());
                fits.then_some(Self::Listed(listed)).ok_or_else(invalid)
            }
        }
    }
}

impl TryFrom<String> for VersionPolicy {
    type Error = InvalidPolicy;
    fn try_from(text: String) -> Result<Self, InvalidPolicy> {
        text.parse()
    }
}

impl From<VersionPolicy> for String {
    fn from(policy: VersionPolicy) -> Self {
        policy.to_string()
    }
}

impl fmt::Display for VersionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest(count) => write!(f, "latest {count}"),
            Self::All => f.write_str("all"),
            Self::Listed(listed) => {
                let words: Vec<_> = listed.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_versions_answer() {
        let version = |n| Version::new(n).unwrap();
        let all: BTreeSet<_> = [1, 2, 5].map(version).into();
        let check = |policy: &str| {
            let policy: VersionPolicy = policy.parse().unwrap();
            policy.of(all.iter().copied()).into_iter().map(Version::get).collect::<Vec<_>>()
        };
        assert_eq!(check("latest 1"), [5]);
        assert_eq!(check("latest 2"), [2, 5]);
        assert_eq!(check("latest 9"), [1, 2, 5]);
        assert_eq!(check("all"), [1, 2, 5]);
        assert_eq!(check("1 3 5"), [1, 5]);
    }

    #[test]
    fn text_round_trip_and_bad_ones() {
        for good in ["latest 1", "all", "1 3 5"] {
            assert_eq!(good.parse::<VersionPolicy>().unwrap().to_string(), good);
        }
        for bad in ["", "latest", "latest 0", "latest 1 2", "all 1", "0", "x", "newest"] {
            assert!(bad.parse::<VersionPolicy>().is_err(), "{bad}");
        }
    }
}
