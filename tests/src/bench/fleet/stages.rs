//! A new version on its way to the whole fleet, by the operator's own commands: published, planned, watched at its canaries
//! and carried on in stages, each gated on what the devices before it have served.

use super::Bench;
use crate::bench::{Row, rounded};
use crate::world::fashion;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The plan, as it is written on the command line; its own waits are in it.
pub(super) struct Plan {
    pub(super) stages: &'static str,
    pub(super) requests: &'static str,
    pub(super) deadline: &'static str,
    /// What else is not left to the command.
    pub(super) more: &'static [&'static str],
}

/// Before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two questions how it goes.
const EVERY: Duration = Duration::from_secs(2);

/// Rolls version 2 out to every device: the minutes from the publisher's command to the end, and whether that is a good one.
pub(super) fn roll_out(bench: &mut Bench, plan: &Plan) -> anyhow::Result<(f64, bool)> {
    let devices = bench.fleet.len();
    let (began, cpu) = (Instant::now(), bench.cloud_cpu()?);
    let operator = &bench.world.operator;
    operator.run(&["model", "push", &fashion().to_string_lossy()])?;
    let (all, Plan { stages, requests, deadline, more }) = ((devices + 1).to_string(), plan);
    let asked = ["rollout", "start", "fashion@2", "--all", "--stages", stages, "--requests"];
    let terms = [requests, "--deadline", deadline, "--approve-from", &all];
    let id = operator.json(&[&asked[..], &terms, more].concat())?["id"].clone();
    let id = id.as_str().context("a roll-out without an id")?;
    let end = until_over(bench, id)?;
    let took_s = began.elapsed().as_secs_f64();
    let cpu_s = cpu.seconds()?;
    let count = |name: &str| end["progress"][name].clone();
    bench.rows.push(Row(vec![
        ("rolled_out_to", json!(devices)),
        ("plan", json!(format!("{stages}; {requests} requests each; deadline {deadline}"))),
        ("phase", end["phase"].clone()),
        ("minutes", json!(rounded(took_s / 60.0))),
        ("succeeded", count("succeeded")),
        ("failed", count("failed")),
        ("cloud_cpu_ms_each", json!(rounded(cpu_s * 1e3 / devices as f64))),
        ("cloud_cores", json!(rounded(cpu_s / took_s))),
        ("memory_kib", json!(rounded(bench.memory_kib()?))),
    ]));
    eprintln!("{}", bench.world.operator.run(&["rollout", "history", id])?);
    Ok((took_s / 60.0, end["phase"] == "done"))
}

fn until_over(bench: &Bench, id: &str) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let status = bench.world.operator.json(&["rollout", "status", id])?;
        let phase = status["phase"].as_str().unwrap_or_default();
        if ["done", "rolled-back", "aborted", "paused"].contains(&phase) {
            return Ok(status);
        }
        ensure!(began.elapsed() < PATIENCE, "no end: {status:#}");
        sleep(EVERY);
    }
}
