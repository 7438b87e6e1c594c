//! `outrigger repo show`: who may say what, until when.

use protocol::tuf::metadata::{
    ROOT, RoleKeys, Root, SNAPSHOT, Said, Snapshot, TARGETS, TIMESTAMP, Targets, Timestamp,
};
use serde_json::json;

use crate::client::Client;
use crate::config::Config;
use crate::output;
use crate::repository::{Remote, team_keys};

/// Arguments of `repo show`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A role, for people.
struct Shown {
    role: String,
    version: u64,
    expires: String,
    keys: RoleKeys,
    names: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let remote = Remote::get(&client)?.need()?;
    let root = remote.read_root()?;
    let targets: Option<Targets> = remote.look(TARGETS)?;
    let shown: Vec<Shown> = remote
        .roles()
        .map(|role| look(&remote, &root, targets.as_ref(), role))
        .collect::<anyhow::Result<_>>()?;
    if args.json {
        let json: Vec<_> = shown.iter().map(as_json).collect();
        output::json(&json.into());
        return Ok(());
    }
    let header = ["role", "version", "until", "keys", "names"];
    output::table(&header, shown.iter().map(row).collect(), "");
    Ok(())
}

fn look(
    remote: &Remote,
    root: &Root,
    targets: Option<&Targets>,
    role: &str,
) -> anyhow::Result<Shown> {
    let (head, names) = match role {
        ROOT => (root.head().clone(), format!("{} keys", root.keys.len())),
        SNAPSHOT => {
            let said = remote.look::<Snapshot>(role)?;
            let said = said.ok_or_else(|| anyhow::anyhow!("no snapshot"))?;
            (said.head.clone(), format!("{} files", said.meta.len()))
        }
        TIMESTAMP => {
            let said = remote.look::<Timestamp>(role)?;
            let said = said.ok_or_else(|| anyhow::anyhow!("no timestamp"))?;
            (said.head.clone(), format!("snapshot {}", said.snapshot().version))
        }
        _ => {
            let said = remote.look::<Targets>(role)?;
            let said = said.ok_or_else(|| anyhow::anyhow!("no {role}"))?;
            (said.head.clone(), format!("{} bundles", said.targets.len()))
        }
    };
    let keys = match (role, targets) {
        (ROOT | SNAPSHOT | TIMESTAMP | TARGETS, _) | (_, None) => root.keys_of(role),
        (team, Some(targets)) => team_keys(targets, team)?,
    };
    let (version, expires) = (head.version, head.expires);
    Ok(Shown { role: role.to_owned(), version, expires, keys, names })
}

fn row(shown: &Shown) -> Vec<String> {
    let Shown { role, version, expires, keys, names } = shown;
    let of = format!("{} of {}", keys.threshold, keys.keys.len());
    vec![role.clone(), version.to_string(), expires.clone(), of, names.clone()]
}

fn as_json(shown: &Shown) -> serde_json::Value {
    let Shown { role, version, expires, keys, names } = shown;
    let ids: Vec<_> = keys.keys.keys().collect();
    json!({
        "role": role, "version": version, "expires": expires, "threshold": keys.threshold,
        "keys": ids, "names": names,
    })
}
