//! Deferrals over a wide area network that is emulated beneath UDP and TCP alike ([`crate::lab`]): the
//! agent over QUIC and over its fallback, beside gRPC over one TCP connection and HTTPS over many, all
//! asking the same cloud for the same model, in turn over the same link. Then a download beside deferrals,
//! and a device whose address changes under load.

mod download;
mod moving;
mod ways;

use super::beside::subjects::Subject;
use super::{BenchReport, Goal, Row, rounded};
use crate::lab::{CLOUD, Lab, Link, Unavailable};
use crate::statistics::{median, percentile_ms};
use crate::world::World;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;
use ways::{Way, Ways};

/// Callers, each of which has one request under way.
const IN_FLIGHT: usize = 64;
const SEED: u64 = 0x0A11_0C8E;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Nothing but the wire.
const PERFECT: Link = Link {
    one_way: ms(0),
    jitter: ms(0),
    loss: 0.0,
    duplicate: 0.0,
    bits_per_s: 0.0,
    queue: ms(1000),
    is_down: false,
};

/// The links, as `tests/src/network.rs` has them for virtual time; the first is that of the goals.
const LINKS: [(&str, Link); 4] = [
    (
        "40 ms, 2 % loss",
        Link { one_way: ms(20), loss: 0.02, bits_per_s: 50e6, queue: ms(200), ..PERFECT },
    ),
    (
        "4G",
        Link {
            one_way: ms(25),
            jitter: ms(8),
            loss: 0.002,
            duplicate: 0.001,
            bits_per_s: 20e6,
            queue: ms(200),
            ..PERFECT
        },
    ),
    (
        "bad Wi-Fi",
        Link {
            one_way: ms(5),
            jitter: ms(10),
            loss: 0.02,
            duplicate: 0.01,
            bits_per_s: 20e6,
            queue: ms(100),
            ..PERFECT
        },
    ),
    (
        "satellite",
        Link { one_way: ms(300), jitter: ms(10), loss: 0.005, bits_per_s: 10e6, ..PERFECT },
    ),
];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Amount {
    links: usize,
    rounds: usize,
    time: Duration,
    moves: usize,
}

/// Measures; `None` where this machine cannot have such a network.
///
/// # Errors
/// A program that does not do its part.
pub fn run(short: bool) -> anyhow::Result<Option<BenchReport>> {
    let amount = match short {
        true => Amount { links: 1, rounds: 2, time: ms(2500), moves: 3 },
        false => Amount { links: LINKS.len(), rounds: 5, time: ms(6000), moves: 10 },
    };
    let lab = match Lab::build(PERFECT, SEED) {
        Ok(lab) => lab,
        Err(error) if error.downcast_ref::<Unavailable>().is_some() => {
            eprintln!("not measured: {error:#}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !lab.set_tcp(ways::TCP) {
        // Namespaces may have only what net.ipv4.tcp_allowed_congestion_control of the system names.
        eprintln!(
            "note: TCP does about congestion what this system does, not what Linux comes with"
        );
    }
    let name = CLOUD.to_string();
    let start = || {
        let world = World::start_at(IpAddr::V4(CLOUD), &["--name", &name])?;
        let subjects = Subject::both(&world)?;
        subjects[0].ship(&world)?;
        anyhow::Ok((world, subjects))
    };
    let (world, subjects) = lab.cloud.inside(start)??;
    let mut ways = Ways::open(&lab, &world, &subjects[0])?;
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    for (index, (name, link)) in LINKS[..amount.links].iter().enumerate() {
        lab.set(*link);
        let measured = ways.measure(amount.rounds, amount.time)?;
        rows.extend(measured.iter().map(|(way, rounds)| row(name, *way, rounds)));
        if index == 0 {
            goals.push(beside_grpc(&measured));
            let beside = download::measure(&lab, &world, &subjects, amount.rounds, amount.time)?;
            rows.extend(beside.0);
            goals.extend(beside.1);
        }
    }
    let degraded = ways.degraded(&lab)? as f64;
    goals.push(Goal::at_most("deferrals that the device had to answer itself", 0.0, degraded));
    lab.set(LINKS[0].1);
    drop(ways);
    let (row, moved) = moving::measure(&lab, &world, &subjects[0], amount.moves)?;
    rows.push(row);
    goals.extend(moved);
    Ok(Some(BenchReport { name: "wan", rows, goals }))
}

/// How long answers took, round by round.
type Rounds = Vec<Vec<Duration>>;

fn p99_ms(rounds: &Rounds) -> f64 {
    median(&rounds.iter().map(|took| percentile_ms(took, 99.0)).collect::<Vec<_>>())
}

fn row(link: &str, way: Way, rounds: &Rounds) -> Row {
    let all: Vec<Duration> = rounds.iter().flatten().copied().collect();
    Row(vec![
        ("link", json!(link)),
        ("way", json!(way.name())),
        ("answers", json!(all.len())),
        ("p50_ms", json!(rounded(percentile_ms(&all, 50.0)))),
        ("p99_ms", json!(rounded(p99_ms(rounds)))),
        ("max_ms", json!(rounded(percentile_ms(&all, 100.0)))),
    ])
}

fn beside_grpc(measured: &[(Way, Rounds)]) -> Goal {
    let p99 = |wanted: Way| {
        measured.iter().find(|(way, _)| *way == wanted).map_or(f64::NAN, |(_, r)| p99_ms(r))
    };
    let share = p99(Way::Quic) / p99(Way::Grpc);
    Goal::at_most("deferral p99 over QUIC, as a share of gRPC's over TCP", 0.6, share)
}
