//! The offline half of a repository of models: keys in files of their own, and metadata that are edited
//! and signed here.
//!
//! Nothing is signed on top of what the cloud says alone: a file of the repository is only edited if one
//! of the keys that are at hand has signed it before ([`Remote::read`]). A cloud that was taken over could
//! otherwise have its own targets signed by whoever pushes next.

use anyhow::Context;
use protocol::id::{ContentHash, ModelName, Variant, Version};
use protocol::manifest::{Manifest, SignedManifest, SignerKey};
use protocol::tuf::date;
use protocol::tuf::delegation::matches;
use protocol::tuf::install::target_path;
use protocol::tuf::introduction::Introduction;
use protocol::tuf::key::Key;
use protocol::tuf::metadata::{
    Envelope, ROOT, Role, RoleKeys, Root, SNAPSHOT, Said, TARGETS, TIMESTAMP, Target, Targets,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

mod draft;
mod keys;

pub(crate) use draft::Draft;
pub(crate) use keys::{DraftArgs, Keys, KeysArgs};

use crate::client::Client;
use crate::commands::agent::Releases;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// What is good: the path of each bundle, and its manifest.
pub(crate) type Named = BTreeMap<String, Vec<u8>>;

/// A file in the making, by role.
pub(crate) type Files = BTreeMap<String, String>;

/// The repository as the cloud has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Remote {
    /// The public half of the newest key of each role that is online.
    online_keys: BTreeMap<String, Key>,
    /// The newest file of each role.
    files: BTreeMap<String, String>,
}

impl Remote {
    /// Asks the cloud.
    pub(crate) fn get(client: &Client) -> anyhow::Result<Self> {
        client.get("/v1/repository")
    }

    /// Whether this fleet has a repository.
    pub(crate) fn exists(&self) -> bool {
        self.files.contains_key(ROOT)
    }

    /// Refuses to go on where this fleet has no repository.
    pub(crate) fn need(self) -> anyhow::Result<Self> {
        let none = || hinted("this fleet has no repository yet", "outrigger repo init");
        self.exists().then_some(self).ok_or_else(none)
    }

    /// The newest key of a role that is online.
    pub(crate) fn online_key(&self, role: &str) -> anyhow::Result<Key> {
        let key = self.online_keys.get(role).cloned();
        key.with_context(|| format!("the cloud has no key for {role}"))
    }

    /// The newest file of a role, for looking only.
    pub(crate) fn look<S: Said>(&self, role: &str) -> anyhow::Result<Option<S>> {
        let Some(text) = self.files.get(role) else { return Ok(None) };
        Ok(Some(Envelope::parse(role, text.as_bytes())?.read(role)?))
    }

    /// The hash of a role's newest file.
    pub(crate) fn hash(&self, role: &str) -> Option<ContentHash> {
        self.files.get(role).map(|text| ContentHash::of(text.as_bytes()))
    }

    /// Every role that has a file.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The newest file of a role, to be edited: one of the keys at hand has signed it.
    pub(crate) fn read<S: Said>(&self, role: &str, keys: &Keys) -> anyhow::Result<S> {
        let text = self.files.get(role).with_context(|| format!("there is no {role}"))?;
        let envelope = Envelope::parse(role, text.as_bytes())?;
        envelope.verify(role, &keys.any()).map_err(|_| {
            let what = format!("none of the keys at hand has signed the {role} of this repository");
            hinted(what, "--keys DIR names the folder with its keys; repeat it for several")
        })
    }
}

/// A file that is the next version, good for so long, signed by all keys at hand that count.
pub(crate) fn sign<S: Said>(
    role: &str,
    said: &mut S,
    (keys, counting): (&Keys, &[&RoleKeys]),
    expires_s: i64,
) -> anyhow::Result<String> {
    let head = said.head_mut();
    head.version += 1;
    head.expires = date::format(expires_s);
    let signers: Vec<_> = keys.that_count(counting).collect();
    for needed in counting {
        let there = signers.iter().filter(|key| needed.keys.contains_key(&key.tuf_key().id()));
        let there = there.count() as u64;
        let needs = if keys.are_first() { 1 } else { needed.threshold };
        if there < needs {
            let what =
                format!("{role} needs {} of its keys, {there} are at hand", needed.threshold);
            let hint = "--keys DIR names a folder with keys; repeat it for several; or collect signatures with --draft \
                        FILE";
            return Err(hinted(what, hint));
        }
    }
    let envelope = Envelope::signed_by(&*said, signers).context("it cannot be signed")?;
    Ok(String::from_utf8(envelope.to_bytes())?)
}

/// Hands files to the cloud; the versions that hold now.
pub(crate) fn publish(
    client: &Client,
    files: &Files,
    introduction: Option<&Introduction>,
) -> anyhow::Result<Value> {
    let body = json!({ "files": files, "introduction": introduction });
    let answer: Value = client.send("POST", "/v1/repository", &serde_json::to_vec(&body)?)?;
    Ok(answer["versions"].clone())
}

/// Names bundles in the files of the roles that may, and whose keys are at hand: a team's where its
/// patterns match, else targets. The roles that were signed anew.
pub(crate) fn name(
    remote: &Remote,
    keys: &Keys,
    named: &Named,
    expires_s: i64,
) -> anyhow::Result<Files> {
    let root: Root = remote.read_root()?;
    let targets: Targets = remote.look(TARGETS)?.context("there are no targets")?;
    let mut files = Files::new();
    let mut by_role: BTreeMap<String, Named> = BTreeMap::new();
    for (path, manifest) in named {
        let role = team_of(&targets, keys, path).unwrap_or_else(|| TARGETS.to_owned());
        by_role.entry(role).or_default().insert(path.clone(), manifest.clone());
    }
    for (role, named) in by_role {
        let mut said: Targets = remote.read(&role, keys)?;
        let before = said.targets.clone();
        said.targets.extend(named.iter().map(|(path, bytes)| (path.clone(), Target::of(bytes))));
        if said.targets == before {
            continue;
        }
        let counting = match role.as_str() {
            TARGETS => root.keys_of(TARGETS),
            team => team_keys(&targets, team)?,
        };
        let text = sign(&role, &mut said, (keys, &[&counting]), expires_s)?;
        files.insert(role, text);
    }
    Ok(files)
}

/// How long targets are good that name something new.
const NAMED_LIFE_S: i64 = 365 * 24 * 60 * 60;

/// In a fleet with a repository: names these files, unless they are named already. The keys for that must be at hand.
pub(crate) fn name_as_good(
    client: &Client,
    config: &Config,
    keys: &KeysArgs,
    named: &Named,
) -> anyhow::Result<()> {
    let remote = Remote::get(client)?;
    if !remote.exists() {
        return Ok(());
    }
    let keys = Keys::open(keys, config)?;
    let files = name(&remote, &keys, named, output::now_s() + NAMED_LIFE_S)?;
    if !files.is_empty() {
        publish(client, &files, None)?;
    }
    Ok(())
}

/// Takes these paths out of the files of all roles that name them. The roles that were signed anew.
pub(crate) fn unname(
    remote: &Remote,
    keys: &Keys,
    paths: &[String],
    expires_s: i64,
) -> anyhow::Result<Files> {
    let root: Root = remote.read_root()?;
    let targets: Targets = remote.look(TARGETS)?.context("there are no targets")?;
    let offline = |role: &&str| !matches!(*role, ROOT | SNAPSHOT | TIMESTAMP);
    let mut files = Files::new();
    for role in remote.roles().filter(offline) {
        let looked: Targets = remote.look(role)?.context("an empty role")?;
        if !paths.iter().any(|path| looked.targets.contains_key(path)) {
            continue;
        }
        let mut said: Targets = remote.read(role, keys)?;
        said.targets.retain(|path, _| !paths.contains(path));
        let counting = match role {
            TARGETS => root.keys_of(TARGETS),
            team => team_keys(&targets, team)?,
        };
        files.insert(role.to_owned(), sign(role, &mut said, (keys, &[&counting]), expires_s)?);
    }
    Ok(files)
}

impl Remote {
    /// Root as the cloud says that it is: good enough to see which keys count. What they sign is their
    /// holder's decision, and devices believe their own root.
    pub(crate) fn read_root(&self) -> anyhow::Result<Root> {
        self.look(ROOT)?.context("there is no root")
    }
}

/// The team that may name a path, if its keys are at hand.
fn team_of(targets: &Targets, keys: &Keys, path: &str) -> Option<String> {
    let roles = targets.delegations.as_ref()?.roles.as_ref()?;
    let may =
        |paths: &Option<Vec<String>>| paths.iter().flatten().any(|pattern| matches(pattern, path));
    let team = roles.iter().find(|role| may(&role.paths))?;
    let own = team_keys(targets, &team.name).ok()?;
    keys.that_count(&[&own]).next().map(|_| team.name.clone())
}

/// The keys of a team.
pub(crate) fn team_keys(targets: &Targets, team: &str) -> anyhow::Result<RoleKeys> {
    let keys = targets.delegations.as_ref().and_then(|delegations| delegations.keys_of(team));
    keys.with_context(|| format!("targets delegate nothing to {team}"))
}

/// A role of these keys.
pub(crate) fn role(keys: &[Key], threshold: u64) -> Role {
    Role { keyids: keys.iter().map(Key::id).collect(), threshold }
}

/// A bundle as the API lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    model: ModelName,
    version: Version,
    variant: Variant,
    bundle: ContentHash,
}

/// Every bundle, and every build of the agent, on the cloud that one of these operators has signed, and how many
/// others there are.
pub(crate) fn pushed(client: &Client, operators: &[SignerKey]) -> anyhow::Result<(Named, usize)> {
    let listed: Vec<Listed> = serde_json::from_value(client.list("/v1/models", "models")?)?;
    let (mut named, mut others) = (Named::new(), 0);
    for Listed { model, version, variant, bundle } in listed {
        let signed: SignedManifest = client.get(&format!("/v1/bundles/{bundle}"))?;
        match signed.verify(operators) {
            Ok(manifest) if is(&manifest, &model, version, variant) => {
                named.insert(target_path(&model, version, variant), signed.manifest.into_bytes());
            }
            _ => others += 1,
        }
    }
    for build in Releases::get(client)?.releases {
        match build.signed.verify(operators) {
            Ok(release) => drop(named.insert(release.path(), build.signed.release.into_bytes())),
            Err(_) => others += 1,
        }
    }
    Ok((named, others))
}

fn is(manifest: &Manifest, model: &ModelName, version: Version, variant: Variant) -> bool {
    (&manifest.model, manifest.version, manifest.variant) == (model, version, variant)
}
