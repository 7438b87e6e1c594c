//! `cargo xtask prove`: what takes too long, or wants too much of a machine, for `cargo xtask test`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

mod compat;
mod deadlines;
mod fleet;
mod fuzz;
mod lasting;
mod package;
pub(crate) mod pipelines;
mod power_cut;
mod simulation;
mod telemetry;
mod tuf;

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
    /// For simulation: how many worlds, instead of 20,000.
    #[arg(long)]
    seeds: Option<u64>,
    /// For fuzz: how long, instead of 30 minutes.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// For tuf: the folder with a copy of theupdateframework/tuf-conformance.
    #[arg(long, value_name = "DIR")]
    suite: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Claim {
    /// The agent of the previous release with this cloud, this agent with the previous cloud, a device from one to the other and back, and a
    /// roll-out over both.
    Compat,
    /// Over six kinds of links no request is lost, answered twice or answered late: 100,000 in virtual time, 12,000 in real time.
    Deadlines,
    /// Over a link that is cut 50 times, by an agent that is killed in between, a model comes with hardly a byte twice.
    Downloads,
    /// Through the real cloud, over 200 simulated devices and 3 real agents, bad versions are stopped among their canaries.
    Fleet,
    /// In half an hour of hostile ONNX files none makes the reader, or what edits graphs, do anything but answer or refuse.
    Fuzz,
    /// A model of more than 2 GB is written with its weights beside it, read and edited, and every number is in its place.
    LongModel,
    /// Of three inference nodes under load one is killed, hangs and stops, the control node too, and no request is lost.
    Nodes,
    /// The .deb installs, runs, upgrades and purges in a root of its own; the tar.gz runs where it is unpacked.
    Package,
    /// Real models on photos, sentences and a stream of sound, through the real agent.
    Pipelines,
    /// Whenever the power is cut, the agent starts again and serves what it had said that it serves.
    PowerCut,
    /// Bad versions are stopped among their canaries on 200 simulated devices, and good ones reach all of them.
    Rollout,
    /// In 20,000 simulated worlds no answer is late, no budget is exceeded, and every breaker recovers.
    Simulation,
    /// After 24,000 calls, good and bad, and new versions in between, none is lost and the agent has not grown.
    Soak,
    /// A version is exchanged 1,000 times while it is asked: no call fails, and the cloud has not grown.
    Swap,
    /// Agents are killed 1,000 times, the cloud too, while telemetry is recorded and sent: nothing that was acknowledged is lost.
    Telemetry,
    /// Every test of the public TUF conformance suite passes against the client that devices have.
    Tuf,
    /// Three times as much as the cloud can answer: it answers as much and as quickly as ever, and refuses the rest at once.
    Overload,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.claim {
        Claim::Compat => return compat::prove(args.short),
        Claim::Deadlines => return deadlines::prove(args.short),
        Claim::Downloads => return lasting::prove("downloads", args.short),
        Claim::Fleet => return fleet::prove(args.short),
        Claim::Fuzz => return fuzz::prove(args.short, args.minutes),
        Claim::LongModel => return lasting::prove("long-model", args.short),
        Claim::Nodes => return lasting::prove("nodes", args.short),
        Claim::Package => package::prove(args.short)?,
        Claim::Pipelines => {
            let (models, speech) = (args.models.as_deref(), args.speech.as_deref());
            pipelines::prove(models, speech, args.short)?;
        }
        Claim::PowerCut => power_cut::prove(args.short)?,
        Claim::Rollout => return lasting::prove("rollout", args.short),
        Claim::Simulation => return simulation::prove(args.short, args.seeds),
        Claim::Soak => return lasting::prove("soak", args.short),
        Claim::Swap => return lasting::prove("swap", args.short),
        Claim::Telemetry => return telemetry::prove(args.short),
        Claim::Tuf => return tuf::prove(args.suite.as_deref()),
        Claim::Overload => return lasting::prove("overload", args.short),
    }
    Ok(ExitCode::SUCCESS)
}
