//! `cargo xtask prove telemetry`: what a device said to be recorded is in the store at the end, once, whoever is killed and
//! whatever the network does; and what that writes to a device's flash in a day.

use clap::Parser;
use outrigger_tests::people::exit_code;
use outrigger_tests::telemetry::{chaos, flash, kills};
use std::process::ExitCode;
use std::time::Duration;

/// Fleets side by side: each mostly waits.
const FLEETS: usize = 6;

#[derive(Parser)]
#[command(name = "outrigger-telemetry-proof")]
struct Args {
    /// Less of all: to see that it holds.
    #[arg(long)]
    short: bool,
    /// How many agents are killed.
    #[arg(long)]
    kills: Option<usize>,
    /// How many networks are lived through, one for each seed.
    #[arg(long)]
    seeds: Option<u64>,
    /// How long a disk's writes are counted, in seconds; each is a device's minute.
    #[arg(long)]
    disk_s: Option<u64>,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (fleets, kills, seeds, disk_s) =
        if args.short { (1, 20, 20, 60) } else { (FLEETS, 1_000, 1_000, 600) };
    if let Some(written) = flash::wear(Duration::from_secs(args.disk_s.unwrap_or(disk_s)))? {
        println!("{written}");
        written.check()?;
    }
    let report = kills::kill_in(fleets, args.kills.unwrap_or(kills))?;
    println!("{report}");
    report.check()?;
    let of_each = args.seeds.unwrap_or(seeds).div_ceil(fleets as u64);
    let report = kills::side_by_side(fleets, |fleet| {
        let first = fleet as u64 * of_each;
        chaos::live_through(first..first + of_each)
    })?;
    println!("{report}");
    report.check()?;
    println!("proven: no kill and no network cost what was acknowledged, and nothing came twice");
    Ok(())
}
