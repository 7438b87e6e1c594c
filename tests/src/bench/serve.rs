//! The cloud as an inference server, beside others: what a small and a large request cost, alone and
//! under load, how much memory it takes, and how long answers take as more is offered.
//!
//! The cloud is asked over TLS with a key, as it always is; the others are asked as they come, without
//! either. What TLS itself takes is a row of its own.

mod offered;
mod tls;

use super::beside::groups::{self, Found, Group};
use super::beside::peers::Peers;
use super::beside::servers::Server;
use super::beside::subjects::Subject;
use super::plot::Plot;
use super::{BenchReport, Goal, Row, rounded};
use crate::statistics::median;
use crate::world::{World, with_descendants};
use anyhow::Context;
use serde_json::json;
use std::time::Duration;

const CLOUD: &str = "cloud, HTTPS";
const MOSEC: &str = "mosec, bytes";

/// Measures.
///
/// # Errors
/// A program that does not do its part.
pub fn run(short: bool) -> anyhow::Result<(BenchReport, Plot)> {
    let world = World::start()?;
    let subjects = Subject::both(&world)?;
    subjects[0].ship(&world)?;
    let idle_mb = idle_mb(&world)?;
    subjects[1].ship(&world)?;
    let peers = Peers::start(world.folder(), &subjects)?;
    let cloud = Server::of_cloud(&world)?;
    let servers: Vec<Server> = cloud.into_iter().chain(peers.servers()).collect();
    let (rounds, time) = if short { (3, 150) } else { (9, 1000) };
    let groups = groups::measure(&subjects, &servers, rounds, Duration::from_millis(time))?;
    let mut rows: Vec<Row> = groups.iter().flat_map(Group::rows).collect();
    let (offered, plot) = offered::measure(&subjects[1], &servers, short)?;
    rows.extend(offered);
    for subject in &subjects {
        rows.push(tls::row(subject, &groups)?);
    }
    rows.push(Row(vec![("memory", json!("idle, one small model")), ("pss_mb", json!(idle_mb))]));
    let goals = goals(&groups, idle_mb)?;
    Ok((BenchReport { name: "serve", rows, goals }, plot))
}

/// PSS of the cloud and of what it started, in MB, with the one model that was pushed.
fn idle_mb(world: &World) -> anyhow::Result<f64> {
    let process = world.cloud.process().context("no cloud")?.id();
    let mut samples = Vec::new();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(300));
        let processes = with_descendants(&[process])?;
        let kib = processes.into_iter().map(crate::world::pss_kb).sum::<anyhow::Result<u64>>()?;
        samples.push(kib as f64 * 1024.0 / 1e6);
    }
    Ok(rounded(median(&samples)))
}

fn goals(groups: &[Group], idle_mb: f64) -> anyhow::Result<Vec<Goal>> {
    let found = |request, in_flight| groups::found(groups, CLOUD, request, in_flight);
    let efficiency = |n| anyhow::Ok(median(&found("600 kB", n)?.efficiency));
    let small = found("256 B", 32)?;
    let mut goals =
        vec![Goal::at_most("256 B, 32 in flight: CPU per call (ms)", 0.030, median(&small.cpu_ms))];
    if let Ok(mosec) = groups::found(groups, MOSEC, "256 B", 32) {
        let times = median(&small.per_second) / median(&mosec.per_second);
        goals.push(Goal::at_least("256 B, 32 in flight: calls per second, of mosec's", 1.5, times));
    }
    if let Some(best) = best_peer_alone(groups) {
        let part = median(&found("256 B", 1)?.p50_ms) / best;
        goals.push(Goal::at_most("256 B, 1 in flight: p50, of the best peer's", 0.25, part));
    }
    goals.extend([
        Goal::at_least("600 kB, 1 in flight: CPU efficiency", 0.97, efficiency(1)?),
        Goal::at_least("600 kB, 8 in flight: CPU efficiency", 0.97, efficiency(8)?),
        Goal::at_least("600 kB, 32 in flight: CPU efficiency", 0.97, efficiency(32)?),
        Goal::at_most("idle with one small model, PSS (MB)", 60.0, idle_mb),
    ]);
    Ok(goals)
}

/// The shortest p50 of a lone small call that another server reached, in milliseconds.
fn best_peer_alone(groups: &[Group]) -> Option<f64> {
    let peers = ["mosec, bytes", "Triton, HTTP", "Triton, gRPC"];
    let found = peers.iter().filter_map(|peer| groups::found(groups, peer, "256 B", 1).ok());
    let p50 = |found: &Found| median(&found.p50_ms);
    found.map(p50).min_by(f64::total_cmp)
}
