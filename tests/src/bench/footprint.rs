//! What the agent takes of a device: memory by the method of Greengrass nucleus lite (PSS of the
//! process, a sample every 10 s for 10 minutes, after 5 minutes of warm-up), the time from its start
//! to being ready, and the size of its program.

use super::{BenchReport, Goal, Row, rounded};
use crate::statistics::median;
use crate::world::{Agent, AgentOptions, World, eventually, program};
use anyhow::{Context, ensure};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long is watched.
struct Patience {
    warm_up: Duration,
    every: Duration,
    samples: usize,
    restarts: usize,
}

impl Patience {
    fn new(short: bool) -> Self {
        let s = Duration::from_secs;
        if short {
            return Self { warm_up: s(3), every: s(1), samples: 8, restarts: 5 };
        }
        Self { warm_up: s(300), every: s(10), samples: 60, restarts: 15 }
    }
}

/// Measures. Where the agent was built to be shipped, `bare_bytes` is its size without pipelines, and
/// sizes are compared too.
///
/// # Errors
/// A program that does not do its part.
pub fn run(short: bool, bare_bytes: Option<u64>) -> anyhow::Result<BenchReport> {
    let patience = Patience::new(short);
    let world = World::start()?;
    let agent = world.agent("device", &AgentOptions::default())?;
    agent.wait_until("connected", |status| status["connected"] == true)?;
    ensure!(!maps_runtime(&agent)?, "the runtime is loaded although there is no model");
    let bare = watch(&agent, &patience)?;
    world.ship_fashion()?;
    agent.wait_active("fashion", 1)?;
    ensure!(maps_runtime(&agent)?, "there is a model without its runtime");
    let idle = watch(&agent, &patience)?;
    let state_dir = agent.stop()?;
    let starts =
        (0..patience.restarts).map(|_| start(&state_dir)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = vec![
        memory_row("no model, runtime not loaded", &bare),
        memory_row("runtime and demo model, idle", &idle),
    ];
    rows.push(Row(vec![
        ("start", json!("to ready, demo model installed")),
        ("median_s", json!(rounded(median(&starts)))),
        ("slowest_s", json!(rounded(starts.iter().copied().fold(0.0, f64::max)))),
    ]));
    let mut goals = vec![
        Goal::at_most("no model, PSS (MB)", 12.0, median(&bare)),
        Goal::at_most("runtime and demo model, PSS (MB)", 40.0, median(&idle)),
        Goal::at_most("ready after start (s)", 0.5, median(&starts)),
    ];
    if let Some(bare_bytes) = bare_bytes {
        let whole_bytes = program("outrigger-agent")?.metadata()?.len();
        goals.push(Goal::at_most("program without pipelines (MB)", 9.0, bare_bytes as f64 / 1e6));
        goals.push(Goal::at_most("program with all (MB)", 15.0, whole_bytes as f64 / 1e6));
    }
    Ok(BenchReport { name: "footprint", rows, goals })
}

fn memory_row(state: &str, mb: &[f64]) -> Row {
    Row(vec![
        ("state", json!(state)),
        ("samples", json!(mb.len())),
        ("median_mb", json!(rounded(median(mb)))),
        ("most_mb", json!(rounded(mb.iter().copied().fold(0.0, f64::max)))),
    ])
}

/// PSS in MB (10^6 bytes; the system counts in 1,024).
fn watch(agent: &Agent, patience: &Patience) -> anyhow::Result<Vec<f64>> {
    std::thread::sleep(patience.warm_up);
    let mut samples = Vec::with_capacity(patience.samples);
    for _ in 0..patience.samples {
        std::thread::sleep(patience.every);
        samples.push(agent.process().pss_kb()? as f64 * 1024.0 / 1e6);
    }
    Ok(samples)
}

fn maps_runtime(agent: &Agent) -> anyhow::Result<bool> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", agent.process().id()))?;
    Ok(maps.contains("libonnxruntime"))
}

/// Seconds from the start of the process to its first answer that it is ready.
fn start(state_dir: &Path) -> anyhow::Result<f64> {
    let start = Instant::now();
    let agent = Agent::start(state_dir, &AgentOptions::default())?;
    eventually("ready", Duration::from_secs(20), || {
        let answer = agent.client().ok()?.get("/v2/health/ready").ok()?;
        (answer.status == 200).then_some(())
    })
    .context("after a restart")?;
    let took = start.elapsed().as_secs_f64();
    agent.stop()?;
    Ok(took)
}
