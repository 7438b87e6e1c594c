//! `cargo xtask prove power-cut`: the power is cut at many moments of an agent's life.

use clap::Parser;
use outrigger_tests::people::exit_code;
use outrigger_tests::power_cut::{ALONE, Effort, Only, cut, obstacle};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "outrigger-power-cut")]
struct Args {
    /// Fewer points: to see that it holds.
    #[arg(long)]
    short: bool,
    /// Only while versions of a model take over, and give way again.
    #[arg(long)]
    only_updates: bool,
    /// Only while telemetry is recorded and sent.
    #[arg(long, conflicts_with = "only_updates")]
    only_telemetry: bool,
    /// Already alone with its mounts and programs.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.inside {
        return exit_code(run(&args));
    }
    if let Some(reason) = obstacle() {
        println!("SKIPPED: {reason}");
        return ExitCode::SUCCESS;
    }
    match inside(&args) {
        Ok(code) => code,
        Err(error) => exit_code(Err(error)),
    }
}

/// This program again, where its mounts and programs are nobody else's and end with it.
fn inside(args: &Args) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(ALONE).arg(std::env::current_exe()?).env("TMPDIR", folder.path());
    command.arg("--inside").args(args.short.then_some("--short"));
    command.args(args.only_updates.then_some("--only-updates"));
    command.args(args.only_telemetry.then_some("--only-telemetry"));
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let effort = if args.short { Effort::SHORT } else { Effort::LONG };
    let only = args.only_updates.then_some(Only::Updates);
    let only = only.or(args.only_telemetry.then_some(Only::Telemetry));
    let report = cut(effort, only)?;
    println!("{report}");
    report.check()?;
    println!("proven: at no point did a power cut cost what was acknowledged, or the start");
    Ok(())
}
