//! `cargo xtask prove`: what takes too long, or wants too much of a machine, for `cargo xtask test`.

use std::path::PathBuf;

use clap::ValueEnum;

mod package;
pub(crate) mod pipelines;
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
    /// For pipelines: the folder with the models; that of OUTRIGGER_BENCH_MODELS when absent.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// For pipelines: a WAV file with speech, beside the sounds that are made.
    #[arg(long, value_name = "FILE")]
    speech: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Claim {
    /// The .deb installs, runs, upgrades and purges in a root of its own; the tar.gz runs where it is unpacked.
    Package,
    /// Real models on photos, sentences and a stream of sound, through the real agent.
    Pipelines,
    /// Whenever the power is cut, the agent starts again and serves what it had said that it serves.
    PowerCut,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match args.claim {
        Claim::Package => Ok(package::prove(args.short)?),
        Claim::Pipelines => {
            let (models, speech) = (args.models.as_deref(), args.speech.as_deref());
            Ok(pipelines::prove(models, speech, args.short)?)
        }
        Claim::PowerCut => power_cut::prove(args.short),
    }
}
