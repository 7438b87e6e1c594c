//! `cargo xtask bench NAME`: measurements beside a yardstick from the same run.

use clap::{Parser, ValueEnum};
use outrigger_tests::bench;
use outrigger_tests::people::{exit_code, write_json};
use outrigger_tests::{downloads, long_model, nodes, overload, rollouts, soak, swap};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "outrigger-bench")]
struct Args {
    /// What to measure.
    name: Name,
    /// A short form that ends within 60 s.
    #[arg(long)]
    short: bool,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For `footprint`: the agent is the shipped one, and without pipelines it has so many bytes.
    #[arg(long)]
    bare_bytes: Option<u64>,
    #[command(flatten)]
    cascade: bench::cascade::Sources,
    /// For `compress`: the folder with PP-OCRv4.
    #[arg(long, value_name = "DIR")]
    ocr: Option<PathBuf>,
    /// For `compress`: only models whose name holds this; for `wan`: only such links, `download` or `moving`.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// For `compress`: keep data, builds and figures in DIR; what is there already is not made again.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// For `compress`: time the builds in --work again.
    #[arg(long, requires = "work")]
    retime: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Local calls and deferrals beside in-process ONNX Runtime.
    Agent,
    /// What deferral costs and what it promises, beside other rules.
    Cascade,
    /// What `outrigger model compress` makes, beside onnxruntime.quantization's best.
    Compress,
    /// CUDA under the agent beside Python's ONNX Runtime; without an NVIDIA GPU, why not.
    Gpu,
    /// New versions of models on their way, as deltas and otherwise.
    Delta,
    /// Accepted answers when the world changes: how soon it is noticed, and how often in error.
    Drift,
    /// A fleet of simulated devices on one node: memory, idle cost, and a storm of connections.
    Fleet,
    /// Memory, time to be ready, size of the program.
    Footprint,
    /// QUIC beside streams over TLS and TCP, on loopback.
    Link,
    /// Deferrals beside gRPC and HTTPS over an emulated wide area network; without root, why not.
    Wan,
    /// How long a device that is shut out keeps its connection.
    Revocation,
    /// The cloud beside other servers; with `--json FILE`, a plot beside it as SVG.
    Serve,
    /// Telemetry: how fast it is written and taken, and what it costs a request.
    Telemetry,
    /// Inputs that travel in fewer bytes: what that saves, and what it costs in accuracy.
    Thrift,
    /// Three inference nodes that are killed, hang and stop under load; fails where a request is lost.
    Nodes,
    /// Thousands of calls, after which nothing has grown; fails where something has.
    Soak,
    /// A download over a link that is cut 50 times, by an agent that is killed; fails where bytes come twice.
    Downloads,
    /// Roll-outs of good and bad versions over simulated devices; fails where a bad one passes its canaries.
    Rollout,
    /// The same through the real cloud, over simulated devices and real agents; fails where a bad one passes its canaries.
    RolloutFleet,
    /// A version is exchanged 1,000 times while it is asked; fails where anybody notices.
    Swap,
    /// Three times as many requests as can be answered; fails where the answers get worse.
    Overload,
    /// A model that is too long for one file; fails where a number is not in its place.
    LongModel,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let report = match args.name {
        Name::Agent => bench::agent::run(args.short)?,
        Name::Cascade => match bench::cascade::run(&args.cascade, args.short)? {
            Some(report) => report,
            None => return Ok(()),
        },
        Name::Compress => match bench::compress::run(&compressed(args), args.short)? {
            Some(report) => report,
            None => return Ok(()),
        },
        Name::Delta => match bench::delta::run(&compressed(args), args.short)? {
            Some(report) => report,
            None => return Ok(()),
        },
        Name::Gpu => match bench::gpu::run(args.short)? {
            Some(report) => report,
            None => return Ok(()),
        },
        Name::Drift => bench::drift::run(args.short)?,
        Name::Fleet => bench::fleet::run(args.short)?,
        Name::Footprint => bench::footprint::run(args.short, args.bare_bytes)?,
        Name::Link => bench::link::run(args.short)?,
        #[cfg(target_os = "linux")]
        Name::Wan => match bench::wan::run(args.only.as_deref(), args.short)? {
            Some(report) => report,
            None => return Ok(()),
        },
        #[cfg(not(target_os = "linux"))]
        Name::Wan => anyhow::bail!("network namespaces are Linux's"),
        Name::Revocation => bench::revocation::run(args.short)?,
        Name::Serve => serve(args)?,
        Name::Telemetry => bench::telemetry::run(args.short)?,
        Name::Thrift => bench::thrift::run(args.short)?,
        Name::Nodes if args.short => nodes::run(nodes::Amount::SHORT)?,
        Name::Nodes => nodes::run(nodes::Amount::WHOLE)?,
        Name::Soak if args.short => soak::run(soak::Amount::SHORT)?,
        Name::Soak => soak::run(soak::Amount::WHOLE)?,
        Name::Downloads if args.short => downloads::run(downloads::Amount::SHORT)?,
        Name::Downloads => downloads::run(downloads::Amount::WHOLE)?,
        Name::Rollout if args.short => rollouts::run(rollouts::Amount::SHORT)?,
        Name::Rollout => rollouts::run(rollouts::Amount::WHOLE)?,
        Name::RolloutFleet => rollouts::mixed::run(args.short)?,
        Name::Swap if args.short => swap::run(swap::Amount::SHORT)?,
        Name::Swap => swap::run(swap::Amount::WHOLE)?,
        Name::Overload if args.short => overload::run(overload::Effort::SHORT, false)?,
        Name::Overload => overload::run(overload::Effort::WHOLE, true)?,
        Name::LongModel => match long_model::run(long(args.short))? {
            Some(report) => report,
            None => return Ok(()),
        },
    };
    println!("{report}");
    write_json(args.json.as_deref(), &report)?;
    let proves = matches!(
        args.name,
        Name::Downloads
            | Name::Nodes
            | Name::Rollout
            | Name::RolloutFleet
            | Name::Soak
            | Name::Swap
            | Name::Overload
            | Name::LongModel
    );
    if proves { report.check() } else { Ok(()) }
}

fn long(short: bool) -> long_model::Amount {
    if short { long_model::Amount::SHORT } else { long_model::Amount::WHOLE }
}

fn compressed(args: &Args) -> bench::compress::Sources {
    let (models, lines) = (args.cascade.models.clone(), args.cascade.lines.clone());
    let (ocr, only, work) = (args.ocr.clone(), args.only.clone(), args.work.clone());
    bench::compress::Sources { models, ocr, lines, only, work, retime: args.retime }
}

/// Figures, and a picture.
fn serve(args: &Args) -> anyhow::Result<bench::BenchReport> {
    let (report, plot) = bench::serve::run(args.short)?;
    if let Some(json) = &args.json {
        let picture = json.with_extension("svg");
        std::fs::write(&picture, plot.svg())?;
        eprintln!("plot: {}", picture.display());
    }
    Ok(report)
}
