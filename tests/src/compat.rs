//! Programs of the previous release beside those of this one: an agent of either with the cloud of the other
//! runs the demo; a device goes from the previous agent to this one and back, as where an update is rolled back,
//! on the same state folder; and where the previous agent updates itself, it does so to this one.

use crate::fashion::{Images, ask};
use crate::world::{Agent, AgentOptions, World, program};
use anyhow::{Context, ensure};
use protocol::release::Mark;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

/// The programs of the previous release, in one folder.
#[derive(Debug, Clone)]
pub struct Previous(pub PathBuf);

impl Previous {
    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        ensure!(path.is_file(), "there is no {}", path.display());
        Ok(path)
    }

    /// Everything, one after the other.
    ///
    /// # Errors
    /// What does not hold, with what the programs printed.
    pub fn prove(&self) -> anyhow::Result<()> {
        let variable = |name: &str| format!("{}_PROGRAM", name.to_uppercase().replace('-', "_"));
        for name in ["outrigger-agent", "outrigger-cloud"] {
            println!("The demo with {name} of the previous release:");
            let mut demo = Command::new(program("outrigger-demo")?);
            demo.env(variable(name), self.program(name)?);
            let status = demo.status().context("cannot start the demo")?;
            ensure!(status.success(), "the demo with the previous {name} failed ({status})");
        }
        self.there_and_back()?;
        println!(
            "The same device went from the previous agent to this one, and back, and nothing was lost."
        );
        let end = match self.updates_itself()? {
            Some(version) => format!("has updated itself to {version}"),
            None => "does not update itself to this version: left out".to_owned(),
        };
        println!("The previous agent {end}.");
        Ok(())
    }

    /// Each finds what the other left: identity, models, budgets.
    fn there_and_back(&self) -> anyhow::Result<()> {
        let world = World::start()?;
        world.ship_fashion()?;
        let state_dir = world.folder().join("device");
        let (old, new) = (self.program("outrigger-agent")?, program("outrigger-agent")?);
        Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
        for (version, program) in [(1, &old), (2, &new), (2, &old), (3, &old), (3, &new)] {
            let agent = Agent::start_program(program, &state_dir, &AgentOptions::default())?;
            if version > 1 {
                agent.wait_until("what was active", |status| {
                    let active =
                        crate::world::model_status(status, "fashion")["active_version"].as_u64();
                    active.is_some_and(|active| active >= version - 1)
                })?;
            }
            self.push(&world, version)?;
            agent.wait_active("fashion", version)?;
            asked(&agent)?;
            agent.stop()?;
        }
        Ok(())
    }

    /// A version of the demo's model, unless it is there.
    fn push(&self, world: &World, version: u64) -> anyhow::Result<()> {
        let known = world.operator.json(&["model", "list"])?;
        let is_known =
            known.as_array().is_some_and(|all| all.iter().any(|m| m["version"] == version));
        if !is_known {
            world.ship_fashion()?;
        }
        Ok(())
    }

    /// The version that it has come to; nothing where it cannot.
    fn updates_itself(&self) -> anyhow::Result<Option<String>> {
        let old = self.program("outrigger-agent")?;
        let (old_mark, new) = (Mark::find(&std::fs::read(&old)?), program("outrigger-agent")?);
        let mark = Mark::find(&std::fs::read(&new)?)?;
        if !old_mark.is_ok_and(|old| old.version < mark.version) {
            return Ok(None);
        }
        let world = World::start()?;
        world.ship_fashion()?;
        let state_dir = world.folder().join("device");
        Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
        let agent = Agent::start_program(&old, &state_dir, &AgentOptions::default())?;
        agent.wait_active("fashion", 1)?;
        let version = mark.version.to_string();
        world.operator.run(&["agent", "push", &new.to_string_lossy()])?;
        world.operator.run(&["agent", "assign", &version, "--all"])?;
        agent.wait_anew("the new program", |status| status["agent_version"] == *version)?;
        Ok(Some(version))
    }
}

/// It answers, and defers.
fn asked(agent: &Agent) -> anyhow::Result<()> {
    let images = Images::test()?;
    let mut client = agent.client()?;
    for placement in ["edge", "cloud"] {
        let answer = ask(&mut client, images.pixels(0), &json!({ "placement": placement }))?;
        ensure!(answer.status == 200, "asked for {placement}: {}", answer.status);
    }
    Ok(())
}
