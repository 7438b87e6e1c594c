//! `outrigger device token`: makes one; `list` and `revoke` look after those that there are.

use clap::Subcommand;

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod revoke;

/// Arguments of `device token`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    create: create::Args,
}

#[derive(Subcommand)]
enum Command {
    /// List tokens, and how many devices each still lets in.
    List(list::Args),
    /// Take a token back, at once and for good; devices that it let in stay.
    Revoke(revoke::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        None => create::run(&args.create),
        Some(Command::List(args)) => list::run(args),
        Some(Command::Revoke(args)) => revoke::run(args),
    }
}
