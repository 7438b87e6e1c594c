//! `outrigger repo rotate`: a role gets new keys, and its old ones count no more.

use anyhow::Context;
use protocol::tuf::install::DIRECTOR;
use protocol::tuf::key::Key;
use protocol::tuf::metadata::{ROOT, Root, SNAPSHOT, TARGETS, TIMESTAMP, Targets};
use serde_json::Value;

use super::Signing;
use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::repository::{self, Files, Keys, Remote, sign};

/// Arguments of `repo rotate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whose keys: root, targets, snapshot, timestamp or director.
    role: String,
    #[command(flatten)]
    signing: Signing,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let mut keys = args.signing.open_keys(&config)?;
    let expires_s = args.signing.expires_s();
    let files = match args.role.as_str() {
        DIRECTOR => direct_anew(&client, &remote, &keys, expires_s)?,
        role @ (ROOT | TARGETS | SNAPSHOT | TIMESTAMP) => {
            let root = remote.read(ROOT, &keys)?; // before anything is made
            rotate(&client, (&remote, root), &mut keys, role, expires_s)?
        }
        other => {
            let hint =
                "root, targets, snapshot, timestamp or director; a team's: outrigger repo delegate";
            return Err(hinted(format!("{other} has no keys that can be rotated here"), hint));
        }
    };
    args.signing.finish(&client, &remote, &files)?;
    Ok(())
}

fn rotate(
    client: &Client,
    (remote, mut root): (&Remote, Root),
    keys: &mut Keys,
    role: &str,
    expires_s: i64,
) -> anyhow::Result<Files> {
    let (before, old) = (root.keys_of(ROOT), root.keys_of(role));
    let new: Vec<Key> = match role {
        SNAPSHOT | TIMESTAMP => vec![online(client, role)?],
        _ => old.keys.iter().map(|_| keys.make(role)).collect::<anyhow::Result<_>>()?,
    };
    root.roles.insert(role.to_owned(), repository::role(&new, old.threshold));
    root.keys.extend(new.into_iter().map(|key| (key.id(), key)));
    let used: Vec<_> = root.roles.values().flat_map(|role| role.keyids.clone()).collect();
    root.keys.retain(|id, _| used.contains(id));
    let (after, keys) = (root.keys_of(ROOT), &*keys);
    let mut files = Files::new();
    files.insert(ROOT.to_owned(), sign(ROOT, &mut root, (keys, &[&before, &after]), expires_s)?);
    if role == TARGETS {
        let mut targets: Targets = remote.read(TARGETS, keys)?;
        let counting = root.keys_of(TARGETS);
        let text = sign(TARGETS, &mut targets, (keys, &[&counting]), expires_s)?;
        files.insert(TARGETS.to_owned(), text);
    }
    Ok(files)
}

/// The director's key stands in the targets.
fn direct_anew(
    client: &Client,
    remote: &Remote,
    keys: &Keys,
    expires_s: i64,
) -> anyhow::Result<Files> {
    let mut targets: Targets = remote.read(TARGETS, keys)?;
    let new = online(client, DIRECTOR)?;
    let delegations = targets.delegations.as_mut().context("targets delegate nothing")?;
    let roles = delegations.roles.as_mut().context("targets delegate to no listed role")?;
    let director = roles.iter_mut().find(|role| role.name == DIRECTOR);
    let director = director.context("targets name no director")?;
    for old in std::mem::take(&mut director.role.keyids) {
        delegations.keys.remove(&old);
    }
    director.role = repository::role(std::slice::from_ref(&new), 1);
    delegations.keys.insert(new.id(), new);
    let counting = remote.read_root()?.keys_of(TARGETS);
    let text = sign(TARGETS, &mut targets, (keys, &[&counting]), expires_s)?;
    Ok([(TARGETS.to_owned(), text)].into())
}

/// Has the cloud make one more key.
fn online(client: &Client, role: &str) -> anyhow::Result<Key> {
    let mut answer: Value = client.send("POST", &format!("/v1/repository/keys/{role}"), b"")?;
    serde_json::from_value(answer["key"].take()).context("the cloud's key is not understood")
}
