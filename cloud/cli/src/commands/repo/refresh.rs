//! `outrigger repo refresh`: the same again, good for longer.

use protocol::tuf::metadata::{ROOT, Root, TARGETS, Targets};

use super::Signing;
use crate::client::Client;
use crate::config::Config;
use crate::repository::{Files, Remote, sign, team_keys};

/// Arguments of `repo refresh`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whose file: root, targets or a team's. What is online renews itself.
    #[arg(default_value = TARGETS, value_name = "ROLE")]
    role: String,
    #[command(flatten)]
    signing: Signing,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let keys = args.signing.open_keys(&config)?;
    let expires_s = args.signing.expires_s();
    let role = args.role.as_str();
    let text = if role == ROOT {
        let mut root: Root = remote.read(ROOT, &keys)?;
        let counting = root.keys_of(ROOT);
        sign(ROOT, &mut root, (&keys, &[&counting]), expires_s)?
    } else {
        let mut targets: Targets = remote.read(role, &keys)?;
        let counting = match (role, remote.look::<Targets>(TARGETS)?) {
            (TARGETS, _) | (_, None) => remote.read_root()?.keys_of(TARGETS),
            (team, Some(targets)) => team_keys(&targets, team)?,
        };
        sign(role, &mut targets, (&keys, &[&counting]), expires_s)?
    };
    let files: Files = [(role.to_owned(), text)].into();
    args.signing.finish(&client, &remote, &files)?;
    Ok(())
}
