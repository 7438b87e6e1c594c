//! Who else may name targets: roles by pattern or by hash, in order, and hash bins (section 4.5).

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use super::key::Key;
use super::metadata::{ROOT, Role, RoleKeys, SNAPSHOT, TARGETS, TIMESTAMP};
use crate::id::ContentHash;
use crate::limits::TUF_DELEGATED_ROLES_MAX;

/// Whom a role has delegated names to: either listed roles, or bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delegations {
    /// Their keys.
    pub keys: BTreeMap<String, Key>,
    /// In the order in which they are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<DelegatedRole>>,
    /// Many roles of the same keys, each with its share of all hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succinct_roles: Option<Bins>,
}

/// A role that may name some targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Its keys.
    #[serde(flatten)]
    pub role: Role,
    /// What it does not name, of what it may, nobody behind it names.
    pub terminating: bool,
    /// Patterns of paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Beginnings of SHA-256 of paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
}

/// Hash bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    /// The keys of all.
    #[serde(flatten)]
    pub role: Role,
    /// There are two to the power of this.
    pub bit_length: u32,
    /// The beginning of their names.
    pub name_prefix: String,
}

/// A role that has to be asked for a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub keys: RoleKeys,
    /// Nobody behind it is asked.
    pub terminating: bool,
}

impl Delegations {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match (&self.roles, &self.succinct_roles) {
            (Some(roles), None) => check_roles(roles),
            (None, Some(bins)) => bins.check(),
            _ => Err("delegations by list and by bins, or by neither"),
        }
    }

    /// The roles that may name this path, in order.
    pub fn roles_for(&self, path: &str) -> Vec<Ask> {
        if let Some(bins) = &self.succinct_roles {
            let keys = RoleKeys::of(&bins.role, &self.keys);
            return vec![Ask { name: bins.name_for(path), keys, terminating: true }];
        }
        let matching = self.roles.iter().flatten().filter(|role| role.may_name(path));
        let ask = |role: &DelegatedRole| Ask {
            name: role.name.clone(),
            keys: RoleKeys::of(&role.role, &self.keys),
            terminating: role.terminating,
        };
        matching.map(ask).collect()
    }

    /// The keys of a listed role.
    pub fn keys_of(&self, name: &str) -> Option<RoleKeys> {
        let role = self.roles.iter().flatten().find(|role| role.name == name)?;
        Some(RoleKeys::of(&role.role, &self.keys))
    }
}

fn check_roles(roles: &[DelegatedRole]) -> Result<(), &'static str> {
    let names: BTreeSet<_> = roles.iter().map(|role| &role.name).collect();
    let is_top = |name: &str| [ROOT, TIMESTAMP, SNAPSHOT, TARGETS].contains(&name);
    if names.len() < roles.len() || roles.len() > TUF_DELEGATED_ROLES_MAX {
        return Err("a delegated role twice, or too many of them");
    }
    if roles.iter().any(|role| role.name.is_empty() || is_top(&role.name)) {
        return Err("a delegation to one of the four roles, or to none");
    }
    if roles.iter().any(|role| role.paths.is_some() == role.path_hash_prefixes.is_some()) {
        return Err("a delegation by paths and by hashes, or by neither");
    }
    roles.iter().try_for_each(|role| role.role.check())
}

impl DelegatedRole {
    fn may_name(&self, path: &str) -> bool {
        let hash = || ContentHash::of(path.as_bytes()).to_string();
        let by_hash = |prefixes: &Vec<String>| {
            let hash = hash();
            prefixes.iter().any(|prefix| hash.starts_with(prefix.as_str()))
        };
        let by_path = |paths: &Vec<String>| paths.iter().any(|pattern| matches(pattern, path));
        self.paths.as_ref().is_some_and(by_path)
            || self.path_hash_prefixes.as_ref().is_some_and(by_hash)
    }
}

impl Bins {
    fn check(&self) -> Result<(), &'static str> {
        if !(1..=32).contains(&self.bit_length) || self.name_prefix.is_empty() {
            return Err("bins of 1 to 32 bits, with a name");
        }
        self.role.check()
    }

    fn name_for(&self, path: &str) -> String {
        let hash = ContentHash::of(path.as_bytes()).to_string();
        let head = u64::from_str_radix(&hash[..8], 16).expect("eight hexadecimal digits");
        let bin = head >> (32 - self.bit_length);
        let digits = (self.bit_length.div_ceil(4)) as usize; // of the highest bin
        format!("{}-{bin:0digits$x}", self.name_prefix)
    }
}

/// Whether a path has this form, where `*` is any text and `?` any character, but no `/`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut names) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if is_like(pattern, name) => {}
            _ => return false,
        }
    }
}

/// One name between slashes. On a difference the last `*` takes one character more: no recursion, and
/// at most the product of both lengths.
fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("*", "a", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("foo-?.tgz", "foo-1.tgz", true),
            ("foo-?.tgz", "foo-12.tgz", false),
            ("*.py", "a.py.py", true),
            ("*.py", "a.pyc", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("README", "readme", false),
            ("", "", true),
            ("vision-*/*/*", "vision-cat/3/edge.json", true),
            ("[a]", "a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn bins_share_all_hashes() {
        let role = Role { keyids: Vec::new(), threshold: 1 };
        let bins =
            |bit_length| Bins { role: role.clone(), bit_length, name_prefix: "bin".to_owned() };
        // SHA-256("a") begins with ca978112, so do these bits.
        let names =
            [(1, "bin-1"), (4, "bin-c"), (5, "bin-19"), (8, "bin-ca"), (32, "bin-ca978112")];
        for (bits, name) in names {
            assert_eq!(bins(bits).name_for("a"), name);
        }
    }
}
