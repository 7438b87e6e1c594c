//! Programs that nobody here wrote call an agent with the demo model.

use crate::python::Environment;
use crate::world::{Agent, AgentOptions, World, fashion};

/// Runs a script of tests/python with two of the agent's addresses, the demo model's ONNX file and
/// its images as arguments. Nothing is run where the packages cannot be got, which is printed.
///
/// # Errors
/// What the script printed.
pub fn check(
    packages: &[&str],
    script: &str,
    addresses: impl Fn(&Agent) -> [String; 2],
) -> anyhow::Result<()> {
    let Some(environment) = Environment::with(packages)? else { return Ok(()) };
    let (_world, agent) = demo_agent()?;
    let model = fashion().join("edge.onnx").to_string_lossy().into_owned();
    let images = fashion().join("data/test-images.u8").to_string_lossy().into_owned();
    let [first, second] = addresses(&agent);
    let arguments = [first.as_str(), second.as_str(), &model, &images];
    print!("{}", environment.run(script, &arguments)?);
    Ok(())
}

/// A running agent that answers for the demo model, and the fleet that it is in.
///
/// # Errors
/// A program that does not do its part.
pub fn demo_agent() -> anyhow::Result<(World, Agent)> {
    let world = World::start()?;
    world.ship_fashion()?;
    let agent = world.agent("device", &AgentOptions::default())?;
    agent.wait_active("fashion", 1)?;
    Ok((world, agent))
}
