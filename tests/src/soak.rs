//! Thousands of calls to one agent: two models, good requests and bad ones, new versions in between.
//! No call may be lost or answered wrongly, and what the agent takes must not grow.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::http::HttpClient;
use crate::world::{Agent, AgentOptions, World};
use anyhow::{Context, ensure};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod calls;
mod versions;

use calls::{Call, Outcome};
use versions::Versions;

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Calls in all, the warm-up included.
    pub calls: u64,
    /// Stages; a new version arrives in the middle of each. The first two are the warm-up: only
    /// the second version finds memory that an earlier one gave back.
    pub stages: u64,
}

const WARM_UP_STAGES: u64 = 2;

impl Amount {
    /// The whole proof.
    pub const WHOLE: Self = Self { calls: 24_000, stages: 8 };
    /// To see that it runs and holds.
    pub const SHORT: Self = Self { calls: 3_000, stages: 5 };
}

/// Callers at the same time.
const CALLERS: u64 = 4;
/// What may be open beside the callers' connections when it is looked at: a file that is being read.
const DESCRIPTORS_SLACK: f64 = 2.0;

/// What the agent takes.
struct Footprint {
    pss_kb: u64,
    descriptors: usize,
}

impl Footprint {
    fn of(agent: &Agent) -> anyhow::Result<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", agent.process().id()))?.count();
        Ok(Self { pss_kb: agent.process().pss_kb()?, descriptors })
    }

    fn row(&self, when: &str, calls: u64) -> Row {
        Row(vec![
            ("when", json!(when)),
            ("calls", json!(calls)),
            ("pss_mb", json!(rounded(self.pss_kb as f64 * 1024.0 / 1e6))),
            ("descriptors", json!(self.descriptors)),
        ])
    }
}

/// Runs a soak.
///
/// # Errors
/// A call that was lost, or answered in a way that it must not be.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let world = World::start()?;
    world.ship_fashion()?;
    let versions = Versions::make(&world, amount.stages + 1)?;
    versions.ship(&world, 1)?;
    // Its versions answer as differently as they can.
    let config = "[update]\nshadow_quiet_s = 1\ndisagreement = 1.0".to_owned();
    let agent = world.agent("device", &AgentOptions { config })?;
    agent.wait_active("fashion", 1)?;
    agent.wait_active(versions::MODEL, 1)?;
    let mut callers =
        (0..CALLERS).map(|_| agent.client()).collect::<anyhow::Result<Vec<HttpClient>>>()?;
    let (outcome, mut rows) = (Outcome::default(), Vec::new());
    let mut after_warm_up = None;
    let each = amount.calls / amount.stages;
    for stage in 1..=amount.stages {
        let numbers = AtomicU64::new((stage - 1) * each);
        std::thread::scope(|scope| {
            let call = |client| call_until(client, &versions, &numbers, stage * each, &outcome);
            let running: Vec<_> =
                callers.iter_mut().map(|client| scope.spawn(move || call(client))).collect();
            versions.ship(&world, stage + 1)?;
            agent.wait_active(versions::MODEL, stage + 1)?;
            let mut ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.try_for_each(|end| end.map_err(|_| anyhow::anyhow!("a caller panicked"))?)
        })
        .with_context(|| format!("stage {stage}; the agent said:\n{}", agent.process().output()))?;
        let footprint = Footprint::of(&agent)?;
        let warm_up = stage <= WARM_UP_STAGES;
        rows.push(footprint.row(if warm_up { "warm-up" } else { "soak" }, stage * each));
        if stage == WARM_UP_STAGES {
            after_warm_up = Some(footprint);
        }
    }
    let before = after_warm_up.context("no warm-up")?;
    rows.push(outcome.row());
    ensure!(outcome.calls() == each * amount.stages, "a call was lost: {:?}", outcome.row());
    let now = Footprint::of(&agent)?;
    let growth = now.pss_kb as f64 / before.pss_kb as f64;
    let opened = now.descriptors as f64 - before.descriptors as f64;
    Ok(BenchReport {
        name: "soak",
        rows,
        goals: vec![
            Goal::at_most("PSS at the end over PSS after warm-up", 1.05, growth),
            Goal::at_most("file descriptors more than after warm-up", DESCRIPTORS_SLACK, opened),
        ],
    })
}

/// Calls until all calls of a stage are made.
fn call_until(
    client: &mut HttpClient,
    versions: &Versions,
    numbers: &AtomicU64,
    end: u64,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    loop {
        let number = numbers.fetch_add(1, Relaxed);
        if number >= end {
            return Ok(());
        }
        let call = Call::of(number);
        call.make(client, versions, outcome).with_context(|| format!("call {number}, {call:?}"))?;
    }
}
