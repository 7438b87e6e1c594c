//! `outrigger-fleet-sim`: a fleet for a cloud that is to be driven.

use anyhow::Context;
use clap::Parser;
use outrigger_fleet_sim::{Fleet, Nature, Place};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Thousands of simulated devices, with real certificates and connections. Prints a line of JSON each second: how many are
/// connected, and what became of the others.
#[derive(Parser)]
#[command(name = "outrigger-fleet-sim")]
struct Args {
    /// The cloud.
    #[arg(long, value_name = "IP:PORT")]
    cloud: SocketAddr,
    /// A token for as many devices (`outrigger device token --count N`).
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// How many devices.
    #[arg(long)]
    devices: usize,
    /// How versions behave: `[versions.2]` and what is other than good there, as `slower = 10.0`.
    #[arg(long, value_name = "FILE")]
    behaviour: Option<PathBuf>,
    /// Decides what the file leaves to chance.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End after so many seconds; never where it is not said.
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("cannot read {}", args.token_file.display()))?;
    let token = token.parse().context("the file holds no token")?;
    let mut nature = Nature { seed: args.seed, ..Nature::default() };
    if let Some(file) = &args.behaviour {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        nature.behaviours = Arc::new(toml::from_str(&text)?);
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut fleet = Fleet::enrol(Place::at(args.cloud), &token, args.devices).await?;
        fleet.set_nature(nature);
        fleet.start(args.devices);
        let mut passed_s = 0;
        while args.seconds.is_none_or(|seconds| passed_s < seconds) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            passed_s += 1;
            let line = serde_json::to_string(&fleet.counts())?;
            writeln!(std::io::stdout(), "{line}")?; // whoever reads it may go
        }
        Ok(())
    })
}
