//! Files that several people sign, each at a machine of their own: they go round as a draft, and are published once
//! all signatures are there.

use anyhow::Context;
use protocol::id::ContentHash;
use protocol::tuf::metadata::{Envelope, ROOT, RoleKeys, Root, Said, TARGETS, Targets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

use super::{Files, Keys, Remote, team_keys};
use crate::errors::hinted;

/// What goes round.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// The text of each role's file, as far as it is signed.
    pub(crate) files: Files,
}

/// Where a file of a draft stands.
pub(crate) struct Standing {
    /// The changes that it makes, for people.
    pub(crate) changes: Vec<String>,
    /// Signatures that are still missing.
    pub(crate) missing: u64,
}

impl Draft {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no draft", path.display()))
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    fn look<S: Said>(&self, role: &str) -> anyhow::Result<Option<S>> {
        let Some(text) = self.files.get(role) else { return Ok(None) };
        Ok(Some(Envelope::parse(role, text.as_bytes())?.read(role)?))
    }

    /// Whose signatures a file needs, as things are and as they will be.
    fn counting(&self, remote: &Remote, role: &str) -> anyhow::Result<Vec<RoleKeys>> {
        let (now, then) = (remote.read_root()?, self.look::<Root>(ROOT)?);
        let newest = then.as_ref().unwrap_or(&now);
        Ok(match role {
            ROOT => vec![now.keys_of(ROOT), newest.keys_of(ROOT)],
            TARGETS => vec![newest.keys_of(TARGETS)],
            team => {
                let targets: Option<Targets> = self.look(TARGETS)?;
                let targets = targets.map_or_else(|| remote.look(TARGETS), |own| Ok(Some(own)))?;
                vec![team_keys(&targets.context("there are no targets")?, team)?]
            }
        })
    }

    /// Signs a file with all keys at hand that count. What it is the next version of must be known to whoever
    /// signs: by a signature of one of these keys, or by its hash, `on`, from somebody who has signed it.
    pub(crate) fn sign(
        &mut self,
        remote: &Remote,
        role: &str,
        (keys, on): (&Keys, &[ContentHash]),
    ) -> anyhow::Result<Standing> {
        let counting = self.counting(remote, role)?;
        let counting: Vec<&RoleKeys> = counting.iter().collect();
        let text = self.files.get(role).context("no such file in the draft")?;
        let mut envelope = Envelope::parse(role, text.as_bytes())?;
        let changes = match role {
            ROOT => {
                let before = known(remote, role, keys, on)?;
                changes_of_root(before.as_ref(), &envelope.read(role)?)?
            }
            _ => {
                let before = known(remote, role, keys, on)?;
                changes_of_targets(role, before.as_ref(), &envelope.read(role)?)?
            }
        };
        for key in keys.that_count(&counting) {
            envelope.sign(key).context("it cannot be signed")?;
        }
        let missing = counting.iter().map(|needed| missing(&envelope, role, needed)).max();
        self.files.insert(role.to_owned(), String::from_utf8(envelope.to_bytes())?);
        Ok(Standing { changes, missing: missing.unwrap_or(0) })
    }
}

/// How many signatures of these keys a file lacks.
fn missing(envelope: &Envelope, role: &str, needed: &RoleKeys) -> u64 {
    let enough = |threshold: &u64| {
        let needed = RoleKeys { keys: needed.keys.clone(), threshold: *threshold };
        match role {
            ROOT => envelope.verify::<Root>(role, &needed).is_ok(),
            _ => envelope.verify::<Targets>(role, &needed).is_ok(),
        }
    };
    let there = (1..=needed.threshold).take_while(enough).count() as u64;
    needed.threshold - there
}

/// The file that holds now, where whoever signs can know that it is the right one.
fn known<S: Said>(
    remote: &Remote,
    role: &str,
    keys: &Keys,
    on: &[ContentHash],
) -> anyhow::Result<Option<S>> {
    let Some(text) = remote.files.get(role) else { return Ok(None) };
    let hash = ContentHash::of(text.as_bytes());
    if on.contains(&hash) {
        return remote.look(role);
    }
    remote.read(role, keys).map(Some).map_err(|_| {
        let what = format!("none of the keys at hand has signed the present {role}");
        let hint =
            format!("ask somebody who has whether its SHA-256 is {hash}, and say --on {hash}");
        hinted(what, hint)
    })
}

fn next_of<S: Said>(role: &str, before: Option<&S>, after: &S) -> anyhow::Result<Vec<String>> {
    let version = before.map_or(0, |before| before.head().version) + 1;
    let head = after.head();
    if head.version != version {
        let what = format!("the draft has {role} {}, the next is {version}", head.version);
        return Err(hinted(what, "it was overtaken: make the draft anew"));
    }
    Ok(vec![format!("{role} {version}, good until {}", head.expires)])
}

fn changes_of_root(before: Option<&Root>, after: &Root) -> anyhow::Result<Vec<String>> {
    let mut lines = next_of(ROOT, before, after)?;
    for (role, now) in &after.roles {
        let was = before.and_then(|before| before.roles.get(role));
        let ids = |role: &protocol::tuf::metadata::Role| -> BTreeSet<String> {
            role.keyids.iter().cloned().collect()
        };
        let (old, new) = (was.map(ids).unwrap_or_default(), ids(now));
        differences(&format!("key of {role}"), &old, &new, &mut lines);
        if was.is_none_or(|was| was.threshold != now.threshold) {
            lines.push(format!("  {role} needs {} signatures", now.threshold));
        }
    }
    Ok(lines)
}

fn changes_of_targets(
    role: &str,
    before: Option<&Targets>,
    after: &Targets,
) -> anyhow::Result<Vec<String>> {
    let mut lines = next_of(role, before, after)?;
    let named = |targets: &Targets| -> BTreeSet<String> {
        let named = targets.targets.iter();
        named.map(|(path, target)| format!("{path} {:?}", target.hashes)).collect()
    };
    let old = before.map(named).unwrap_or_default();
    differences("bundle", &old, &named(after), &mut lines);
    if before.and_then(|before| before.delegations.as_ref()) != after.delegations.as_ref() {
        lines.push(format!("  delegations: {}", serde_json::to_string(&after.delegations)?));
    }
    Ok(lines)
}

fn differences(
    what: &str,
    old: &BTreeSet<String>,
    new: &BTreeSet<String>,
    lines: &mut Vec<String>,
) {
    lines.extend(old.difference(new).map(|gone| format!("  - {what} {gone}")));
    lines.extend(new.difference(old).map(|come| format!("  + {what} {come}")));
}
