//! The cloud as an inference server, beside others: what a small and a large request cost, alone and
//! under load, how much memory it takes, and how long answers take as more is offered.
//!
//! The cloud is asked over TLS with a key, as it always is; the others without either, each both as it
//! comes and configured to batch as the cloud does. Goals are about what a caller sees, TLS and key
//! included; what TLS itself takes, and what is left without it, are rows of their own.

mod foreign;
mod offered;
mod tls;

use super::beside::groups::{self, Found, Group};
use super::beside::peers::{Batching, Peers};
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
const CLOUD_GRPC: &str = "cloud, gRPC";
const MOSECS: [&str; 2] = ["mosec, bytes", "mosec in batches, bytes"];
const AS_THEY_COME: [&str; 3] = ["mosec, bytes", "Triton, HTTP", "Triton, gRPC"];
const IN_BATCHES: [&str; 3] =
    ["mosec in batches, bytes", "Triton in batches, HTTP", "Triton in batches, gRPC"];

/// Measures.
///
/// # Errors
/// A program that does not do its part.
pub fn run(short: bool) -> anyhow::Result<(BenchReport, Plot)> {
    // Each server's connections wait while the others are asked, longer than the cloud keeps idle ones.
    let world = World::start_in(&[("OUTRIGGER_CLOUD_SERVER_HEAD_S", "600".into())])?;
    let subjects = Subject::both(&world)?;
    subjects[0].ship(&world)?;
    let idle_mb = idle_mb(&world)?;
    subjects[1].ship(&world)?;
    let ways = [Batching::Off, Batching::On];
    let peers = Peers::start(world.folder(), &subjects, &ways)?;
    let cloud = Server::of_cloud(&world)?;
    let servers: Vec<Server> = cloud.into_iter().chain(peers.servers()).collect();
    let (rounds, time) = if short { (3, 100) } else { (9, 1000) };
    let groups = groups::measure(&subjects, &servers, rounds, Duration::from_millis(time))?;
    let mut rows: Vec<Row> = groups.iter().flat_map(Group::rows).collect();
    rows.extend(alone(&groups)?);
    let ca_pem = world.cloud.ca_pem();
    rows.extend(foreign::measure(world.folder(), &ca_pem, &subjects, &servers, short)?);
    let (offered, plot) = offered::measure(&subjects[1], &servers, short)?;
    rows.extend(offered);
    rows.extend(tls::rows(&subjects, &groups)?);
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

/// A lone call beside the fastest peer's: those that batch as the cloud does, and those as they come.
fn alone(groups: &[Group]) -> anyhow::Result<Vec<Row>> {
    let own = median(&groups::found(groups, CLOUD, "256 B", 1)?.p50_ms);
    let row = |(what, peers): (&str, &[&str])| {
        let best = best_alone(groups, peers)?;
        Some(Row(vec![
            ("a lone call beside", json!(what)),
            ("p50_ms", json!(rounded(own))),
            ("best_peer_p50_ms", json!(rounded(best))),
            ("of_it", json!(rounded(own / best))),
        ]))
    };
    let beside = [("peers in batches", &IN_BATCHES), ("peers as they come", &AS_THEY_COME)];
    Ok(beside.map(|(what, peers)| row((what, peers))).into_iter().flatten().collect())
}

fn goals(groups: &[Group], idle_mb: f64) -> anyhow::Result<Vec<Goal>> {
    let found = |request, in_flight| groups::found(groups, CLOUD, request, in_flight);
    let efficiency = |n| anyhow::Ok(median(&found("600 kB", n)?.efficiency));
    let small = found("256 B", 32)?;
    let mut goals = vec![Goal::at_most(
        "256 B, 32 in flight: CPU per call, TLS and key included (ms)",
        0.030,
        median(&small.cpu_ms),
    )];
    let rate = |server: &&str| Some(&groups::found(groups, server, "256 B", 32).ok()?.per_second);
    let mosec = MOSECS.iter().filter_map(rate).map(|rates| median(rates)).max_by(f64::total_cmp);
    if let Some(mosec) = mosec {
        let name = "256 B, 32 in flight: calls per second, of the faster mosec's";
        goals.push(Goal::at_least(name, 1.5, median(&small.per_second) / mosec));
    }
    if let Some(best) = best_alone(groups, &IN_BATCHES) {
        let name = "256 B, 1 in flight: p50, of the best peer's that batches too";
        goals.push(Goal::at_most(name, 0.25, median(&found("256 B", 1)?.p50_ms) / best));
    }
    let grpc = groups::found(groups, CLOUD_GRPC, "600 kB", 1)?;
    goals.extend([
        Goal::at_least(
            "600 kB, 1 in flight: CPU efficiency, TLS and key included",
            0.97,
            efficiency(1)?,
        ),
        Goal::at_least(
            "600 kB, 8 in flight: CPU efficiency, TLS and key included",
            0.97,
            efficiency(8)?,
        ),
        Goal::at_least(
            "600 kB, 32 in flight: CPU efficiency, TLS and key included",
            0.97,
            efficiency(32)?,
        ),
        Goal::at_most(
            "600 kB, 1 in flight: p50 over gRPC, of that over HTTPS",
            1.25,
            median(&grpc.p50_ms) / median(&found("600 kB", 1)?.p50_ms),
        ),
        Goal::at_most("idle with one small model, PSS (MB)", 60.0, idle_mb),
    ]);
    Ok(goals)
}

/// The shortest p50 of a lone small call that one of these servers reached, in milliseconds.
fn best_alone(groups: &[Group], servers: &[&str]) -> Option<f64> {
    let found = servers.iter().filter_map(|peer| groups::found(groups, peer, "256 B", 1).ok());
    let p50 = |found: &Found| median(&found.p50_ms);
    found.map(p50).min_by(f64::total_cmp)
}
