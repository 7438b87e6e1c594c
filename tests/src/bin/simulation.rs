//! `cargo xtask prove simulation`: one simulated world for each seed.

use clap::Parser;
use outrigger_tests::people::exit_code;
use outrigger_tests::simulation::{Report, Terms, World, run_seeds};
use std::process::ExitCode;
use std::thread::ScopedJoinHandle;

#[derive(Parser)]
#[command(name = "outrigger-simulation")]
struct Args {
    /// How many worlds.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// 1,000 worlds.
    #[arg(long)]
    short: bool,
}

fn main() -> ExitCode {
    exit_code(prove(&Args::parse()))
}

fn prove(args: &Args) -> anyhow::Result<()> {
    let seeds = if args.short { 1_000 } else { args.seeds };
    let threads = std::thread::available_parallelism()?.get() as u64;
    let step = usize::try_from(threads)?;
    let of_thread = |n: u64| run_seeds((args.first + n..args.first + seeds).step_by(step));
    let reports = std::thread::scope(|scope| {
        let of_thread = &of_thread;
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || of_thread(n))).collect();
        running.into_iter().map(ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut sum = Report::default();
    for report in reports {
        sum.add(&report.map_err(|_| anyhow::anyhow!("a world panicked"))??);
    }
    println!("{sum:#?}");
    let fleet = World::new(&Terms::fleet(5_000), args.first).run()?;
    println!(
        "5,000 devices in one world: {} requests; after an outage all asked at once, {} times were told \
         to ask again, and each had its answer within {:.1} s",
        fleet.requests,
        fleet.asked_again,
        fleet.herd.as_secs_f64()
    );
    println!(
        "proven: in {} worlds no answer was late, none came twice, no budget was exceeded, and every \
         breaker recovered",
        sum.seeds
    );
    Ok(())
}
