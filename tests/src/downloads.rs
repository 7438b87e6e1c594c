//! A model comes over a link that breaks again and again: every break costs no more than what was on its way.
//!
//! The device reaches its cloud through a proxy that cuts each connection after so many bytes. In between the agent
//! is killed, and started again.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::onnx::{perceptron_probes, perceptron_specs, wide_perceptron};
use crate::proxy::{HttpProxy, Trouble};
use crate::world::{Agent, AgentOptions, Publisher, Single, World, eventually, model_status};
use anyhow::Context;
use protocol::id::Variant;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// How often the link is cut.
    pub cuts: u64,
    /// How often the agent is killed.
    pub kills: u64,
    /// Of the model's layers.
    pub width: i64,
}

impl Amount {
    /// To see that it holds.
    pub const SHORT: Self = Self { cuts: 5, kills: 1, width: 700 };
    /// 50 cuts of 16 MB.
    pub const WHOLE: Self = Self { cuts: 50, kills: 3, width: 2_000 };
}

/// The name of the model.
const MODEL: &str = "wide";

/// Pushes a model of two layers of this width, which has about 4 x width^2 bytes; how many exactly.
///
/// # Errors
/// What the cloud answered.
pub fn push(world: &World, version: u64, width: i64) -> anyhow::Result<u64> {
    let mut onnx = wide_perceptron(1, width);
    // The same numbers, for a version that answers otherwise is refused; and a comment, so that the file is another.
    onnx.extend([0x32, 1, b'0' + u8::try_from(version)?]);
    let size = onnx.len() as u64;
    let (input, output) = perceptron_specs();
    let probes = perceptron_probes(world.folder(), &onnx)?;
    let model = MODEL.to_owned();
    let single = Single { model, version, variant: Variant::Edge, onnx, input, output, probes };
    Publisher::with_keys_of(&world.operator)?.publish_single(&single)?;
    Ok(size)
}

/// Assigns it to every device.
///
/// # Errors
/// What the operator's command printed.
pub fn assign(world: &World, version: u64) -> anyhow::Result<()> {
    world.operator.run(&["model", "assign", &format!("{MODEL}@{version}"), "--all"]).map(drop)
}

/// The configuration of an agent behind a proxy, with more of it.
pub fn behind(proxy: &HttpProxy, more: &str) -> AgentOptions {
    let address = proxy.address();
    let link =
        format!("[link]\ncarrier = \"tcp\"\nproxy = \"http://{address}\"\nreconnect_max_s = 1");
    AgentOptions { config: format!("{link}\n{more}") }
}

/// What an agent counts of its downloads.
///
/// # Errors
/// It does not answer.
pub fn fetched_bytes(agent: &Agent) -> anyhow::Result<u64> {
    let status = agent.status()?;
    status["counters"]["downloads"]["fetched_bytes"].as_u64().context("no such counter")
}

/// Runs it.
///
/// # Errors
/// The model does not arrive.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let world = World::start()?;
    let size = push(&world, 1, amount.width)?;
    assign(&world, 1)?;
    let proxy = HttpProxy::start(None)?;
    // The first cut comes when something has arrived, the last before all has.
    proxy.trouble(Trouble::Cut { after_bytes: size / (amount.cuts + 2), times: amount.cuts });
    let options = behind(&proxy, "[download]\ndeltas = false");
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
    let begin = Instant::now();
    let mut fetched = 0;
    for kill in 1..=amount.kills {
        let agent = Agent::start(&state_dir, &options)?;
        let enough = size / (amount.kills + 1);
        let own = eventually("a part of the model", Duration::from_secs(300), || {
            fetched_bytes(&agent).ok().filter(|bytes| *bytes >= enough)
        });
        fetched += own.with_context(|| format!("before kill {kill}"))?;
        agent.kill();
    }
    let agent = Agent::start(&state_dir, &options)?;
    let arrived = eventually("the model", Duration::from_secs(600), || {
        let status = agent.status().ok()?;
        (model_status(&status, MODEL)["active_version"] == 1).then_some(status)
    });
    let arrived = arrived.with_context(|| agent.process().output())?;
    fetched += arrived["counters"]["downloads"]["fetched_bytes"].as_u64().unwrap_or(0);
    Ok(report(amount, &proxy, (size, fetched), begin.elapsed(), &arrived))
}

fn report(
    amount: Amount,
    proxy: &HttpProxy,
    (size, fetched): (u64, u64),
    took: Duration,
    status: &Value,
) -> BenchReport {
    let cuts = proxy.cuts();
    let ratio = fetched as f64 / size as f64;
    let over_wire = proxy.bytes() as f64 / size as f64;
    let row = Row(vec![
        ("model, bytes", json!(size)),
        ("cuts", json!(cuts)),
        ("kills", json!(amount.kills)),
        ("fetched / size", json!(rounded(ratio))),
        ("bytes through the proxy / size", json!(rounded(over_wire))),
        ("attempts that failed", status["counters"]["installs"]["failed"].clone()),
        ("seconds", json!(rounded(took.as_secs_f64()))),
    ]);
    let goals = vec![
        Goal::at_least("cuts", amount.cuts as f64, cuts as f64),
        // What is counted in the moment of a kill may not be on the disk yet.
        Goal::at_most("bytes fetched / size", 1.02, ratio),
    ];
    BenchReport { name: "downloads", rows: vec![row], goals }
}
