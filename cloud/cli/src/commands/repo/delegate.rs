//! `outrigger repo delegate`: a team names its own models as good.

use anyhow::Context;
use protocol::pattern::ModelPatterns;
use protocol::tuf::delegation::DelegatedRole;
use protocol::tuf::metadata::{TARGETS, Targets};

use super::Signing;
use crate::client::Client;
use crate::config::Config;
use crate::repository::{self, Files, Remote, sign, team_keys};

/// Arguments of `repo delegate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The team's name; one that has a delegation gets new keys and these models.
    team: String,
    /// Which models it may name, for example 'vision-*'; repeatable.
    #[arg(long = "model", required = true, value_name = "PATTERN")]
    models: Vec<String>,
    #[command(flatten)]
    signing: Signing,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let _: ModelPatterns = args.models.join(" ").parse().context("these are no patterns")?;
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let mut keys = args.signing.open_keys(&config)?;
    let expires_s = args.signing.expires_s();
    let team = args.team.as_str();
    let mut targets: Targets = remote.read(TARGETS, &keys)?;
    let mut own: Targets = match remote.look::<Targets>(team)? {
        Some(_) => remote.read(team, &keys)?,
        None => Targets::new(0, 0),
    };
    let key = keys.make(team)?;
    let delegations = targets.delegations.as_mut().context("targets delegate nothing")?;
    let roles = delegations.roles.get_or_insert_default();
    roles.retain(|role| role.name != team);
    roles.push(DelegatedRole {
        name: team.to_owned(),
        role: repository::role(std::slice::from_ref(&key), 1),
        terminating: false,
        paths: Some(args.models.iter().map(|pattern| format!("{pattern}/*/*")).collect()),
        path_hash_prefixes: None,
    });
    delegations.keys.insert(key.id(), key);
    let by_team = team_keys(&targets, team)?;
    let by_targets = remote.read_root()?.keys_of(TARGETS);
    let mut files = Files::new();
    let text = sign(TARGETS, &mut targets, (&keys, &[&by_targets]), expires_s)?;
    files.insert(TARGETS.to_owned(), text);
    files.insert(team.to_owned(), sign(team, &mut own, (&keys, &[&by_team]), expires_s)?);
    args.signing.finish(&client, &remote, &files)?;
    eprintln!("The team's key is in {}; it signs by: outrigger repo sign", keys.folder().display());
    Ok(())
}
