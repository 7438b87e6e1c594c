//! What the agent adds to a model. First one caller: local calls over HTTP and deferrals over QUIC.
//! Then load: CPU per call of small and large requests, beside ONNX Runtime in this process and
//! beside other servers, where they install.

mod latency;
mod load;

use super::{BenchReport, Goal, Row};
use crate::world::{AgentOptions, World};

/// What one part of the bench found.
struct Part {
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// Measures.
///
/// # Errors
/// A program that does not do its part.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let world = World::start()?;
    world.ship_fashion()?;
    let agent = world.agent("device", &AgentOptions::default())?;
    agent.wait_active("fashion", 1)?;
    let Part { mut rows, mut goals } = latency::measure(&world, &agent, short)?;
    let load = load::measure(&world, &agent, short)?;
    rows.extend(load.rows);
    goals.extend(load.goals);
    Ok(BenchReport { name: "agent", rows, goals })
}
