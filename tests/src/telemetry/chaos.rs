//! One network after the other between an agent and its cloud, each drawn from a seed: slow, lossy, doubling, shuffling,
//! flapping or dead. What the agent had said to be durable is in the store at the end, once, and in order.

use super::EVERYTHING;
use super::kills::{Report, ask_some, log_of};
use crate::fashion::Images;
use crate::network::{PROFILES, Profile, Random};
use crate::relay::Relay;
use crate::world::{Agent, AgentOptions, World};
use std::ops::Range;
use std::time::Duration;

/// How long a network lasts: some commits, and an upload or its attempt.
const LASTS: Duration = Duration::from_millis(700);

/// Lives through a network for each of these seeds.
///
/// # Errors
/// A program that does not start.
pub fn live_through(seeds: Range<u64>) -> anyhow::Result<Report> {
    let world = World::start()?;
    world.ship_fashion()?;
    world.operator.run(&["telemetry", "key"])?;
    let calm = PROFILES[0];
    let relay = Relay::start(world.cloud.address().parse()?, calm, seeds.start)?;
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &relay.address().to_string(), &world.token()?)?;
    let agent = Agent::start(&state_dir, &AgentOptions { config: EVERYTHING.into() })?;
    agent.wait_active("fashion", 1)?;
    let images = Images::test()?;
    let mut report = Report::default();
    for (number, seed) in seeds.enumerate() {
        let mut random = Random::new(seed);
        relay.begin(Profile::drawn(&mut random), random);
        ask_some(&agent, &images, number)?;
        std::thread::sleep(LASTS); // how long it lasts is part of what is tried
        report.networks += 1;
    }
    relay.set(calm);
    let promised = log_of(&state_dir);
    report.judge_arrived(&world, agent, &promised)?;
    Ok(report)
}
