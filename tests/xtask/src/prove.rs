//! `cargo xtask prove`: what takes too long, or wants too much of a machine, for `cargo xtask test`.

use clap::ValueEnum;

mod package;
mod power_cut;

/// Prove a claim that takes longer than a test, or needs root.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The claim.
    #[arg(value_enum)]
    claim: Claim,
    /// The quick form: to see that it holds, with programs as they are built for tests.
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Claim {
    /// The .deb installs, runs, upgrades and purges in a root of its own; the tar.gz runs where it is unpacked.
    Package,
    /// Whenever the power is cut, the agent starts again and serves what it had said that it serves.
    PowerCut,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match args.claim {
        Claim::Package => Ok(package::prove(args.short)?),
        Claim::PowerCut => power_cut::prove(args.short),
    }
}
