//! Programs of the previous release beside those of this one: an agent of either with the cloud of the other
//! runs the demo; a device goes from the previous agent to this one and back, as where an update is rolled back,
//! on the same state folder; a roll-out over both kinds ends; and where the previous agent updates itself, it does so to
//! this one.

use crate::fashion::{Images, ask};
use crate::world::{Agent, AgentOptions, World, eventually, model_status, program};
use anyhow::{Context, ensure};
use protocol::release::Mark;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// For a roll-out to end: a silent device is told after a minute, and waited for until its deadline.
const PATIENCE: Duration = Duration::from_secs(240);

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
        let why = self.is_in_a_rollout()?;
        println!("A roll-out over both kinds of agents ended; of the previous one it says: {why}.");
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
                    let active = model_status(status, "fashion")["active_version"].as_u64();
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

    /// A roll-out over an agent of either kind: the previous one takes the version, cannot say how that does, and has
    /// failed at the deadline, while the other's success counts. What is said of the previous one.
    fn is_in_a_rollout(&self) -> anyhow::Result<String> {
        let world = World::start_in(&[("OUTRIGGER_CLOUD_ROLLOUTS_LOOK_S", "1".into())])?;
        world.ship_fashion()?;
        let start = |name: &str, program: PathBuf| {
            let state_dir = world.folder().join(name);
            Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
            let agent = Agent::start_program(&program, &state_dir, &AgentOptions::default())?;
            agent.wait_active("fashion", 1)?;
            anyhow::Ok(agent)
        };
        let old = start("previous", self.program("outrigger-agent")?)?;
        let agents = [&old, &start("this", program("outrigger-agent")?)?];
        let folder = crate::world::fashion();
        world.operator.run(&["model", "push", &folder.to_string_lossy()])?;
        let plan = ["--stages", "all:1s", "--requests", "5"];
        let pace = ["--rate", "6000", "--deadline", "60s"];
        let start = ["rollout", "start", "fashion@2", "--all"];
        let begun = world.operator.json(&[&start[..], &plan, &pace].concat())?;
        let id = begun["id"].as_str().context("a roll-out without an id")?;
        let end = eventually("the end of the roll-out", PATIENCE, || {
            agents.iter().try_for_each(|agent| asked(agent)).ok()?;
            let status = world.operator.json(&["rollout", "status", id]).ok()?;
            (status["phase"] == "done").then_some(status)
        })?;
        let count = |name: &str| end["progress"][name].as_u64();
        ensure!((count("succeeded"), count("failed")) == (Some(1), Some(1)), "{end:#}");
        let previous = old.status()?["device"].clone();
        let mut devices = end["devices"].as_array().into_iter().flatten();
        let named = devices.find(|device| device["device"] == previous);
        let why = named.and_then(|device| device["why"].as_str());
        let why = why.with_context(|| format!("the previous one is not named: {end:#}"))?;
        ensure!(why.ends_with("its agent may be older than roll-outs"), "{why}");
        Ok(why.to_owned())
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
