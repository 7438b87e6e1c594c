//! Thousands of simulated worlds: no program, no network, no clock.

use std::process::{Command, ExitCode};

use crate::programs;

pub(super) fn prove(short: bool, seeds: Option<u64>) -> anyhow::Result<ExitCode> {
    let mut command =
        Command::new(programs::build(&["outrigger-tests"], "release", "outrigger-simulation")?);
    command.args(short.then_some("--short"));
    command.args(seeds.iter().flat_map(|seeds| ["--seeds".to_owned(), seeds.to_string()]));
    Ok(programs::exec(&mut command)?)
}
