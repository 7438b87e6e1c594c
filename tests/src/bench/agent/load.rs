//! CPU per call under load. In every round each server is measured for a moment, after the yardstick
//! in this process; the figures are medians over rounds of what was found within one round, so that
//! a machine that slows down for a while slows both.

use super::super::{Goal, Row, rounded};
use super::Part;
use super::in_process::InProcess;
use super::peers::Peers;
use super::servers::Server;
use super::subjects::Subject;
use crate::load::Callers;
use crate::statistics::{median, percentile_ms};
use crate::world::{Agent, CpuMeter, World};
use anyhow::Context;
use serde_json::json;
use std::time::{Duration, Instant};

/// Calls of a server, or of the yardstick, in a round: on a busy machine the time alone gives too few.
const CALLS_MIN: usize = 16;

/// One server, asked by so many callers at once; and what every round found.
struct Cell {
    server: &'static str,
    request: &'static str,
    in_flight: usize,
    process: u32,
    callers: Callers,
    found: Found,
}

#[derive(Default)]
struct Found {
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    per_second: Vec<f64>,
    cpu_ms: Vec<f64>,
    /// CPU per call beyond the yardstick of the same round.
    added_ms: Vec<f64>,
    /// The yardstick's CPU per call over the server's.
    efficiency: Vec<f64>,
}

impl Found {
    fn add(&mut self, latencies: &[Duration], (took, cpu_s): (Duration, f64), yardstick_ms: f64) {
        let calls = latencies.len() as f64;
        let cpu_ms = cpu_s * 1000.0 / calls;
        self.p50_ms.push(percentile_ms(latencies, 50.0));
        self.p99_ms.push(percentile_ms(latencies, 99.0));
        self.per_second.push(calls / took.as_secs_f64());
        self.cpu_ms.push(cpu_ms);
        self.added_ms.push(cpu_ms - yardstick_ms);
        self.efficiency.push(yardstick_ms / cpu_ms);
    }

    fn row(&self, server: &str, request: &str, in_flight: usize) -> Row {
        let of = |values: &[f64]| json!(rounded(median(values)));
        Row(vec![
            ("server", json!(server)),
            ("request", json!(request)),
            ("in_flight", json!(in_flight)),
            ("calls_per_s", json!(median(&self.per_second).round())),
            ("p50_ms", of(&self.p50_ms)),
            ("p99_ms", of(&self.p99_ms)),
            ("cpu_ms_per_call", of(&self.cpu_ms)),
            ("added_cpu_ms", of(&self.added_ms)),
            ("cpu_efficiency", of(&self.efficiency)),
        ])
    }
}

/// The yardstick and the cells of one request at one number of callers.
struct Group {
    yardstick: InProcess,
    found: Found,
    request: &'static str,
    cells: Vec<Cell>,
}

impl Group {
    fn new(subject: &Subject, in_flight: usize, servers: &[Server]) -> anyhow::Result<Self> {
        let cell = |server: &Server| {
            let callers = Callers::connect(&server.target(subject), in_flight);
            let callers = callers.with_context(|| format!("{}: {}", server.name, subject.what))?;
            let (server, process) = (server.name, server.process);
            let (request, found) = (subject.what, Found::default());
            Ok(Cell { server, request, in_flight, process, callers, found })
        };
        let cells = servers.iter().map(cell).collect::<anyhow::Result<_>>()?;
        let yardstick = InProcess::new(subject)?;
        Ok(Self { yardstick, found: Found::default(), request: subject.what, cells })
    }

    fn round(&mut self, time: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        let (latencies, cpu_s) = self.yardstick.call_for(time, CALLS_MIN)?;
        let yardstick_ms = cpu_s * 1000.0 / latencies.len() as f64;
        self.found.add(&latencies, (start.elapsed(), cpu_s), yardstick_ms);
        for cell in &mut self.cells {
            let (cpu, start) = (CpuMeter::start(&[cell.process])?, Instant::now());
            let latencies = cell.callers.call_for(time, CALLS_MIN);
            let latencies = latencies.with_context(|| cell.server.to_owned())?;
            cell.found.add(&latencies, (start.elapsed(), cpu.seconds()?), yardstick_ms);
        }
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let own = self.found.row("in this process", self.request, 1);
        let cells = self.cells.iter().map(|c| c.found.row(c.server, c.request, c.in_flight));
        [own].into_iter().chain(cells)
    }
}

/// Measures.
pub(super) fn measure(world: &World, agent: &Agent, short: bool) -> anyhow::Result<Part> {
    let (rounds, time) = if short { (3, 200) } else { (9, 1000) };
    let subjects = Subject::ship(world)?;
    for subject in &subjects {
        agent.wait_active(subject.model, 1)?;
    }
    let peers = Peers::start(world.folder(), &subjects)?;
    let servers: Vec<Server> = Server::of_agent(agent).into_iter().chain(peers.servers()).collect();
    let mut groups = Vec::new();
    for subject in &subjects {
        for in_flight in subject.in_flight {
            groups.push(Group::new(subject, *in_flight, &servers)?);
        }
    }
    for group in &mut groups {
        group.round(Duration::from_millis(50))?; // to warm up, not to count
        for found in group.cells.iter_mut().map(|c| &mut c.found).chain([&mut group.found]) {
            *found = Found::default();
        }
    }
    for _ in 0..rounds {
        groups.iter_mut().try_for_each(|group| group.round(Duration::from_millis(time)))?;
    }
    let rows = groups.iter().flat_map(Group::rows).collect();
    Ok(Part { rows, goals: goals(&groups)? })
}

/// What is to be reached over HTTP, and by nobody but the agent.
fn goals(groups: &[Group]) -> anyhow::Result<Vec<Goal>> {
    let found = |request: &str, in_flight: usize| {
        let mut cells = groups.iter().flat_map(|group| &group.cells);
        let wanted = |c: &&Cell| c.request == request && c.in_flight == in_flight;
        cells.find(wanted).map(|cell| &cell.found).context("a cell that was not measured")
    };
    let added = median(&found("256 B", 32)?.added_ms);
    let alone = median(&found("256 B", 1)?.p50_ms);
    let efficiency = |n| anyhow::Ok(median(&found("600 kB", n)?.efficiency));
    Ok(vec![
        Goal::at_most("256 B, 32 in flight: added CPU per call (ms)", 0.03, added),
        Goal::at_most("256 B, 1 in flight: p50 (ms)", 0.25, alone),
        Goal::at_least("600 kB, 1 in flight: CPU efficiency", 0.97, efficiency(1)?),
        Goal::at_least("600 kB, 8 in flight: CPU efficiency", 0.97, efficiency(8)?),
        Goal::at_least("600 kB, 32 in flight: CPU efficiency", 0.97, efficiency(32)?),
    ])
}
