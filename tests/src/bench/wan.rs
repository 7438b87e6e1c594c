//! Deferrals over a wide area network that is emulated beneath UDP and TCP alike ([`crate::lab`]): the
//! agent over QUIC and over its fallback, beside gRPC over one TCP connection and HTTPS over many, all
//! asking the same cloud for the same model, in turn over the same link. Then a download beside deferrals,
//! and a device whose address changes under load. The whole takes a quarter of an hour; each part, a link, the
//! download or the changes of address, can be measured alone.

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

/// The parts beside links, which have their names.
const DOWNLOAD: &str = "download";
const MOVING: &str = "moving";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Amount {
    links: usize,
    rounds: usize,
    time: Duration,
    moves: usize,
}

/// What has been measured.
#[derive(Default)]
struct Figures {
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

impl Figures {
    fn extend(&mut self, (rows, goals): (Vec<Row>, Vec<Goal>)) {
        self.rows.extend(rows);
        self.goals.extend(goals);
    }
}

/// Measures, or only the parts whose name holds `only`; `None` where this machine cannot have such a network.
///
/// # Errors
/// A program that does not do its part.
pub fn run(only: Option<&str>, short: bool) -> anyhow::Result<Option<BenchReport>> {
    let amount = match short {
        true => Amount { links: 1, rounds: 2, time: ms(2500), moves: 3 },
        false => Amount { links: LINKS.len(), rounds: 5, time: ms(4000), moves: 10 },
    };
    let wanted = |part: &str| only.is_none_or(|only| part.contains(only));
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
    let links: Vec<_> = LINKS[..amount.links].iter().filter(|(name, _)| wanted(name)).collect();
    let mut figures = Figures::default();
    if !links.is_empty() {
        figures.extend(ask_over(&lab, &world, &subjects[0], &links, amount)?);
    }
    lab.set(LINKS[0].1);
    if wanted(DOWNLOAD) {
        figures.extend(download::measure(&lab, &world, &subjects, amount.rounds, amount.time)?);
    }
    if wanted(MOVING) {
        figures.extend(moving::measure(&lab, &world, &subjects[0], amount.moves)?);
    }
    let Figures { rows, goals } = figures;
    Ok(Some(BenchReport { name: "wan", rows, goals }))
}

/// All ways over these links.
fn ask_over(
    lab: &Lab,
    world: &World,
    subject: &Subject,
    links: &[&(&str, Link)],
    amount: Amount,
) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let mut ways = Ways::open(lab, world, subject)?;
    let (mut rows, mut packets, mut goals) = (Vec::new(), Vec::new(), Vec::new());
    for (name, link) in links {
        lab.set(*link);
        let before = lab.counts();
        let measured = ways.measure(amount.rounds, amount.time)?;
        packets.push(packets_row(name, before, lab.counts()));
        rows.extend(measured.iter().map(|(way, rounds)| row(name, *way, rounds)));
        if *name == LINKS[0].0 {
            goals.push(beside_grpc(&measured));
        }
    }
    let degraded = ways.degraded(lab)? as f64;
    goals.push(Goal::at_most("deferrals that the device had to answer itself", 0.0, degraded));
    rows.extend(packets);
    Ok((rows, goals))
}

/// What the link did, of all ways together: that it is as it was meant to be.
fn packets_row(link: &str, before: [u64; 3], after: [u64; 3]) -> Row {
    let [passed, lost, dropped] = [0, 1, 2].map(|index| (after[index] - before[index]) as f64);
    let percent = |packets: f64| json!(rounded(packets * 100.0 / (passed + lost + dropped)));
    Row(vec![
        ("link", json!(link)),
        ("packets", json!(passed + lost + dropped)),
        ("lost_percent", percent(lost)),
        ("found_no_room_percent", percent(dropped)),
    ])
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
