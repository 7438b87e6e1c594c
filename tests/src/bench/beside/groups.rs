//! CPU per call under load. In every round each server is measured for a moment, after the yardstick
//! in this process; the figures are medians over rounds of what was found within one round, so that
//! a machine that slows down for a while slows both.

use super::super::{Row, rounded};
use super::in_process::InProcess;
use super::servers::Server;
use super::subjects::Subject;
use crate::load::Callers;
use crate::statistics::{median, percentile_ms};
use crate::world::CpuMeter;
use anyhow::Context;
use serde_json::json;
use std::time::{Duration, Instant};

/// Calls of a server, or of the yardstick, in a round: on a busy machine the time alone gives too few.
const CALLS_MIN: usize = 16;

/// One server, asked by so many callers at once; and what every round found.
pub(in crate::bench) struct Cell {
    pub(in crate::bench) server: &'static str,
    request: &'static str,
    in_flight: usize,
    process: u32,
    callers: Callers,
    pub(in crate::bench) found: Found,
}

#[derive(Default)]
pub(in crate::bench) struct Found {
    pub(in crate::bench) p50_ms: Vec<f64>,
    pub(in crate::bench) p99_ms: Vec<f64>,
    pub(in crate::bench) per_second: Vec<f64>,
    pub(in crate::bench) cpu_ms: Vec<f64>,
    /// CPU per call beyond the yardstick of the same round.
    pub(in crate::bench) added_ms: Vec<f64>,
    /// The yardstick's CPU per call over the server's.
    pub(in crate::bench) efficiency: Vec<f64>,
    /// Calls that were refused at first, over all rounds.
    refused: usize,
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
            ("refused", json!(self.refused)),
        ])
    }
}

/// The yardstick and the cells of one request at one number of callers.
pub(in crate::bench) struct Group {
    yardstick: InProcess,
    found: Found,
    request: &'static str,
    pub(in crate::bench) cells: Vec<Cell>,
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
        let servers = servers.iter().filter(|server| server.matters_for(subject));
        let cells = servers.map(cell).collect::<anyhow::Result<_>>()?;
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
            cell.found.refused += cell.callers.take_refused();
        }
        Ok(())
    }

    pub(in crate::bench) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let own = self.found.row("in this process", self.request, 1);
        let cells = self.cells.iter().map(|c| c.found.row(c.server, c.request, c.in_flight));
        [own].into_iter().chain(cells)
    }
}

/// Every subject at each of its numbers of callers, on every server, so many rounds of so long.
pub(in crate::bench) fn measure(
    subjects: &[Subject],
    servers: &[Server],
    rounds: usize,
    time: Duration,
) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for subject in subjects {
        for in_flight in subject.in_flight {
            groups.push(Group::new(subject, *in_flight, servers)?);
        }
    }
    for group in &mut groups {
        group.round(Duration::from_millis(50))?; // to warm up, not to count
        for found in group.cells.iter_mut().map(|c| &mut c.found).chain([&mut group.found]) {
            *found = Found::default();
        }
    }
    for _ in 0..rounds {
        groups.iter_mut().try_for_each(|group| group.round(time))?;
    }
    Ok(groups)
}

/// What was found for one server.
pub(in crate::bench) fn found<'a>(
    groups: &'a [Group],
    server: &str,
    request: &str,
    in_flight: usize,
) -> anyhow::Result<&'a Found> {
    let mut cells = groups.iter().flat_map(|group| &group.cells);
    let wanted = |c: &&Cell| c.server == server && c.request == request && c.in_flight == in_flight;
    cells.find(wanted).map(|cell| &cell.found).context("a cell that was not measured")
}

/// CPU of one call of the subject's model in this process, in milliseconds.
pub(in crate::bench) fn alone_cpu_ms(subject: &Subject, time: Duration) -> anyhow::Result<f64> {
    let (latencies, cpu_s) = InProcess::new(subject)?.call_for(time, CALLS_MIN)?;
    Ok(cpu_s * 1000.0 / latencies.len() as f64)
}
