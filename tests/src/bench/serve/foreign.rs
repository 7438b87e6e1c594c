//! The same servers under load generators that nobody here wrote: `wrk` and Triton's `perf_analyzer`,
//! where they are. What they find is beside what our own callers find, who also look at the answers.

use super::super::beside::servers::{Server, Speech};
use super::super::beside::subjects::Subject;
use super::super::{Row, rounded};
use crate::load::wrk;
use crate::perf_analyzer::{Door, Load, PerfAnalyzer};
use crate::world::CpuMeter;
use anyhow::Context;
use serde_json::{Value, json};
use std::path::Path;

/// What is asked: which of the subjects, by how many at once.
const CASES: [(usize, usize); 3] = [(0, 32), (0, 1), (1, 8)];

pub(super) fn measure(
    folder: &Path,
    ca_pem: &Path,
    subjects: &[Subject],
    servers: &[Server],
    short: bool,
) -> anyhow::Result<Vec<Row>> {
    let cases = if short { &CASES[..1] } else { &CASES };
    let cases = cases.iter().flat_map(|(at, in_flight)| {
        let subject = &subjects[*at];
        let servers = servers.iter().filter(|s| s.matters_for(subject) && (!short || s.batches));
        servers.map(move |server| (server, subject, *in_flight))
    });
    let cases: Vec<_> = cases.collect();
    let mut rows = Vec::new();
    if wrk::is_here() {
        let seconds = if short { 1 } else { 5 };
        for (server, subject, in_flight) in cases.iter().filter(|c| c.0.speech != Speech::Grpc) {
            let row = by_wrk(folder, server, subject, *in_flight, seconds);
            rows.push(row.with_context(|| server.name)?);
        }
    }
    let Some(perf_analyzer) = PerfAnalyzer::find()? else { return Ok(rows) };
    for (server, subject, in_flight) in cases.iter().filter(|c| c.0.speech != Speech::Bytes) {
        let row = by_perf_analyzer(&perf_analyzer, ca_pem, server, subject, *in_flight);
        rows.push(row.with_context(|| server.name)?);
    }
    Ok(rows)
}

fn by_wrk(
    folder: &Path,
    server: &Server,
    subject: &Subject,
    in_flight: usize,
    seconds: u32,
) -> anyhow::Result<Row> {
    let cpu = CpuMeter::start(&[server.process])?;
    let found = wrk::call_for(&server.target(subject), folder, in_flight, seconds)?;
    let cpu_ms = cpu.seconds()? * 1000.0 / found.calls.max(1) as f64;
    let figures = [found.per_second, found.p50_ms, found.p99_ms];
    Ok(row("wrk", server, subject, in_flight, figures, json!(rounded(cpu_ms))))
}

/// It does not say how many calls it made in all, so there is no CPU per call.
fn by_perf_analyzer(
    perf_analyzer: &PerfAnalyzer,
    ca_pem: &Path,
    server: &Server,
    subject: &Subject,
    in_flight: usize,
) -> anyhow::Result<Row> {
    let secured = server.secured.as_ref().map(|s| (ca_pem, s.authorization.as_str()));
    let grpc = server.speech == Speech::Grpc;
    let door = Door { address: server.address, grpc, secured };
    let dimensions: Vec<String> = subject.input.shape().iter().map(i64::to_string).collect();
    let batches = server.batches && subject.batches;
    let skipped = usize::from(batches);
    let shape = format!("{}:{}", subject.input.name(), dimensions[skipped..].join(","));
    let requests = 100 * in_flight;
    let load = Load { model: subject.model, shape: &shape, batches, in_flight, requests };
    let found = perf_analyzer.measure(&door, &load)?;
    let figures = [found.per_second, found.p50_ms, found.p99_ms];
    Ok(row("perf_analyzer", server, subject, in_flight, figures, Value::Null))
}

fn row(
    by: &str,
    server: &Server,
    subject: &Subject,
    in_flight: usize,
    [per_second, p50_ms, p99_ms]: [f64; 3],
    cpu_ms: Value,
) -> Row {
    Row(vec![
        ("asked by", json!(by)),
        ("server", json!(server.name)),
        ("request", json!(subject.what)),
        ("in_flight", json!(in_flight)),
        ("calls_per_s", json!(per_second.round())),
        ("p50_ms", json!(rounded(p50_ms))),
        ("p99_ms", json!(rounded(p99_ms))),
        ("cpu_ms_per_call", cpu_ms),
    ])
}
