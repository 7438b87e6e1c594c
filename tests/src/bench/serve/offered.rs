//! Latency against offered load: callers come at a rate of their own, up to more than the machine can
//! answer. Up to the knee a server keeps up; beyond it answers come late, or refusals at once.

use super::super::beside::groups;
use super::super::beside::servers::{Server, Speech};
use super::super::beside::subjects::Subject;
use super::super::plot::{Plot, Series};
use super::super::{Row, rounded};
use crate::load::open::{Outcome, offer};
use crate::statistics::percentile_ms;
use anyhow::Context;
use serde_json::json;
use std::time::Duration;

/// Offered load, of what the machine could answer if serving took nothing.
const LEVELS: [f64; 8] = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2];
const LEVELS_SHORT: [f64; 3] = [0.5, 0.8, 1.1];
/// A server keeps up while so much of what is offered is answered in time.
const KEEPS_UP: f64 = 0.95;

pub(super) fn measure(
    subject: &Subject,
    servers: &[Server],
    short: bool,
) -> anyhow::Result<(Vec<Row>, Plot)> {
    let ceiling = ceiling_per_s(subject)?;
    let levels = if short { &LEVELS_SHORT[..] } else { &LEVELS };
    let time = Duration::from_millis(if short { 700 } else { 6000 });
    let mut plot = Plot {
        title: format!("{} requests, open loop", subject.what),
        x: "offered, calls per second".to_owned(),
        y: "milliseconds to the answer (p50 dotted, p99)".to_owned(),
        mark: Some((ceiling, "the model alone, all cores".to_owned())),
        series: Vec::new(),
    };
    let mut rows = Vec::new();
    let servers = servers.iter().filter(|s| s.speech != Speech::Grpc && s.matters_for(subject));
    for server in servers {
        let mut series = Series::new(server.name);
        for (seed, level) in (1..).zip(levels) {
            let per_s = ceiling * level;
            let outcome = offer(&server.target(subject), per_s, time, seed);
            let outcome = outcome.with_context(|| server.name.to_owned())?;
            let in_time = outcome.latencies.len() as f64 / outcome.offered.max(1) as f64;
            series.add(
                per_s,
                percentile_ms(&outcome.latencies, 50.0),
                percentile_ms(&outcome.latencies, 99.0),
            );
            if in_time >= KEEPS_UP {
                series.knee = Some(per_s);
            }
            rows.push(row(server.name, per_s, &outcome, in_time));
        }
        plot.series.push(series);
    }
    Ok((rows, plot))
}

fn row(server: &str, per_s: f64, outcome: &Outcome, in_time: f64) -> Row {
    Row(vec![
        ("open loop", json!(server)),
        ("offered_per_s", json!(per_s.round())),
        ("answered_in_time", json!(rounded(in_time))),
        ("refused", json!(outcome.refused)),
        ("p50_ms", json!(rounded(percentile_ms(&outcome.latencies, 50.0)))),
        ("p99_ms", json!(rounded(percentile_ms(&outcome.latencies, 99.0)))),
    ])
}

/// Calls per second of all cores, if they did nothing else.
fn ceiling_per_s(subject: &Subject) -> anyhow::Result<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu_ms = groups::alone_cpu_ms(subject, Duration::from_millis(500))?;
    Ok(1000.0 / cpu_ms * cores as f64)
}
