//! `outrigger repo init`: a repository for a fleet that had none.

use protocol::tuf::delegation::{DelegatedRole, Delegations};
use protocol::tuf::install::{DIRECTOR, DIRECTOR_PATHS};
use protocol::tuf::introduction::Introduction;
use protocol::tuf::key::Key;
use protocol::tuf::metadata::{Head, ROOT, Root, SNAPSHOT, TARGETS, TIMESTAMP, Target, Targets};
use std::collections::BTreeMap;

use super::{Signing, tell};
use crate::client::Client;
use crate::config::{Config, SIGNING_KEY};
use crate::errors::hinted;
use crate::repository::{self, Files, Keys, Named, Remote, publish, pushed, sign};

/// Arguments of `repo init`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many keys root has.
    #[arg(long, default_value_t = 3, value_name = "N")]
    root_keys: u64,
    /// How many of them must sign.
    #[arg(long, default_value_t = 2, value_name = "N")]
    threshold: u64,
    #[command(flatten)]
    signing: Signing,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let operator = config
        .key(SIGNING_KEY)?
        .ok_or_else(|| hinted("there is no signing key here", "outrigger login makes one"))?;
    if args.signing.draft.path.is_some() {
        let hint = "take root's keys to their places afterwards";
        return Err(hinted("a repository begins with all of its keys at hand, and no draft", hint));
    }
    let remote = Remote::get(&client)?;
    if remote.exists() {
        return Err(hinted("this fleet has a repository already", "outrigger repo show"));
    }
    if args.threshold == 0 || args.root_keys < args.threshold {
        return Err(hinted("so many keys can never sign", "--threshold 2 --root-keys 3"));
    }
    let mut keys = Keys::open(&args.signing.keys, &config)?;
    let expires_s = args.signing.expires_s();
    let (named, others) = pushed(&client, &[operator.public()])?;
    let root_keys: Vec<Key> =
        (0..args.root_keys).map(|_| keys.make(ROOT)).collect::<anyhow::Result<_>>()?;
    let mut root = new_root(&remote, (root_keys, args.threshold), keys.make(TARGETS)?)?;
    let mut targets = new_targets(&remote, &named)?;
    let (by_root, by_targets) = (root.keys_of(ROOT), root.keys_of(TARGETS));
    let root_text = sign(ROOT, &mut root, (&keys, &[&by_root]), expires_s)?;
    let targets_text = sign(TARGETS, &mut targets, (&keys, &[&by_targets]), expires_s)?;
    let introduction = Introduction::sign(root_text.as_bytes(), &operator);
    let files: Files = [(ROOT.to_owned(), root_text), (TARGETS.to_owned(), targets_text)].into();
    tell(&publish(&client, &files, Some(&introduction))?, args.signing.json);
    say_next(&keys, named.len(), others);
    Ok(())
}

fn new_root(
    remote: &Remote,
    (root_keys, threshold): (Vec<Key>, u64),
    targets_key: Key,
) -> anyhow::Result<Root> {
    let online = |role| anyhow::Ok(vec![remote.online_key(role)?]);
    let of_roles = [
        (ROOT, root_keys, threshold),
        (TARGETS, vec![targets_key], 1),
        (SNAPSHOT, online(SNAPSHOT)?, 1),
        (TIMESTAMP, online(TIMESTAMP)?, 1),
    ];
    let mut root = Root {
        head: Head::new(ROOT, 0, 0), // signing makes it the first version
        consistent_snapshot: true,
        keys: BTreeMap::new(),
        roles: BTreeMap::new(),
        other: BTreeMap::new(),
    };
    for (role, keys, threshold) in of_roles {
        root.roles.insert(role.to_owned(), repository::role(&keys, threshold));
        root.keys.extend(keys.into_iter().map(|key| (key.id(), key)));
    }
    Ok(root)
}

fn new_targets(remote: &Remote, named: &Named) -> anyhow::Result<Targets> {
    let director = remote.online_key(DIRECTOR)?;
    let mut targets = Targets::new(0, 0);
    targets.targets = named.iter().map(|(path, bytes)| (path.clone(), Target::of(bytes))).collect();
    targets.delegations = Some(Delegations {
        keys: [(director.id(), director.clone())].into(),
        roles: Some(vec![DelegatedRole {
            name: DIRECTOR.to_owned(),
            role: repository::role(&[director], 1),
            terminating: true,
            paths: Some(vec![DIRECTOR_PATHS.to_owned()]),
            path_hash_prefixes: None,
        }]),
        succinct_roles: None,
    });
    Ok(targets)
}

fn say_next(keys: &Keys, named: usize, others: usize) {
    eprintln!("{named} bundles are named as good, those that your signing key signed.");
    if others > 0 {
        eprintln!("{others} others are not: whoever signed them says so by outrigger repo sign.");
    }
    eprintln!("The keys are in {}. Copy root's to media that are", keys.folder().display());
    eprintln!(
        "kept apart, and remove them here: --keys DIR names where they are when they are needed."
    );
}
