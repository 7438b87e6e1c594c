//! The demo: a cloud and an agent on loopback, 1,000 labelled images through the agent's API, the
//! cloud killed in the middle of a second run and started again.

mod report;

pub use report::{Offline, Report};

use crate::fashion::{Images, ask};
use crate::world::{Agent, AgentOptions, World};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The deadline of every request of the demo.
const DEADLINE: Duration = Duration::from_millis(250);
/// How many requests of the second run come before, and during, the outage.
const BEFORE_OUTAGE: usize = 300;
const DURING_OUTAGE: usize = 400;

/// A running demo.
pub struct Demo {
    world: World,
    agent: Agent,
    images: Images,
}

/// The answer to one image.
pub struct Asked {
    /// Where it came from.
    pub placement: String,
    /// Whether it was the true label.
    pub right: bool,
    /// From the request to the whole answer.
    pub latency: Duration,
}

impl Demo {
    /// Starts everything and waits until the model is active on the device.
    ///
    /// # Errors
    /// A program that does not do its part, with what it printed.
    pub fn set_up() -> anyhow::Result<Self> {
        let images = Images::test()?;
        let step = |text: &str| eprintln!("  - {text}");
        eprintln!("Setting up a fleet of one on loopback:");
        step("outrigger-cloud serve: CA, database and admin key are made on the first start");
        let world = World::start()?;
        step("outrigger login, model push models/zoo/fashion, model assign fashion --all");
        world.ship_fashion()?;
        step("outrigger device token; outrigger-agent enrol; outrigger-agent run");
        let agent = world.agent("device", &AgentOptions::default())?;
        agent.wait_active("fashion", 1)?;
        step("the device reports fashion@1 active: signature, hashes and 64 probes are right");
        Ok(Self { world, agent, images })
    }

    /// Sends all the images, several times.
    ///
    /// # Errors
    /// An answer that is lost, or a program that ends.
    pub fn run(&mut self) -> anyhow::Result<Report> {
        let edge = self.pass("edge alone", &json!({ "placement": "edge" }))?;
        let cloud = self.pass("cloud alone", &json!({ "placement": "cloud" }))?;
        let uplink_before = self.uplink_bytes()?;
        let hybrid = self.pass("hybrid", &json!({}))?;
        let uplink_bytes = self.uplink_bytes()? - uplink_before;
        let (offline, recovered) = self.outage()?;
        Ok(Report {
            images: self.images.len(),
            edge_only_accuracy: accuracy(&edge),
            cloud_only_accuracy: accuracy(&cloud),
            hybrid_accuracy: accuracy(&hybrid),
            alone: [("edge", latencies(&edge)), ("cloud", latencies(&cloud))].into(),
            placements: by_placement(&hybrid),
            uplink_bytes,
            offline,
            recovered,
        })
    }

    fn uplink_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.agent.status()?["counters"]["link"]["uplink_bytes"].as_u64().unwrap_or(0))
    }

    fn pass(&self, name: &str, parameters: &Value) -> anyhow::Result<Vec<Asked>> {
        let bar = progress(name, self.images.len());
        let mut client = self.agent.client()?;
        let mut answers = Vec::with_capacity(self.images.len());
        for index in 0..self.images.len() {
            answers.push(self.one(&mut client, index, parameters)?);
            bar.inc(1);
        }
        bar.finish();
        Ok(answers)
    }

    fn one(
        &self,
        client: &mut crate::http::HttpClient,
        index: usize,
        parameters: &Value,
    ) -> anyhow::Result<Asked> {
        let mut parameters = parameters.clone();
        parameters["timeout"] = json!(DEADLINE.as_micros());
        let started = Instant::now();
        let response = ask(client, self.images.pixels(index), &parameters)?;
        let latency = started.elapsed();
        let (body, _) = response.split()?;
        if response.status != 200 {
            anyhow::bail!("image {index}: HTTP {}: {body}", response.status);
        }
        let verdict = &body["parameters"];
        Ok(Asked {
            placement: verdict["placement"].as_str().unwrap_or("?").to_owned(),
            right: verdict["label"] == self.images.label(index),
            latency,
        })
    }

    /// The second run: the cloud is killed, comes back, and deferral resumes by itself.
    fn outage(&mut self) -> anyhow::Result<(Offline, bool)> {
        let total = self.images.len();
        let bar = progress("outage", total);
        let mut client = self.agent.client()?;
        let mut offline = Offline::default();
        let mut after = Vec::new();
        for index in 0..total {
            if index == BEFORE_OUTAGE {
                self.world.cloud.kill();
                bar.println("    the cloud was killed (SIGKILL), requests go on");
            }
            if index == BEFORE_OUTAGE + DURING_OUTAGE {
                bar.println("    the cloud starts again, the agent was not touched");
                self.world.cloud.restart()?;
                self.agent.wait_until("deferral possible again", |status| {
                    status["connected"] == true && self.try_defer()
                })?;
            }
            let answer = self.one(&mut client, index, &json!({}));
            match index {
                0..BEFORE_OUTAGE => drop(answer?),
                i if i < BEFORE_OUTAGE + DURING_OUTAGE => offline.count(&answer),
                _ => after.push(answer?),
            }
            bar.inc(1);
        }
        bar.finish();
        Ok((offline, after.iter().any(|a| a.placement == "cloud")))
    }

    /// One request that asks for the cloud: an open breaker closes only with a success.
    fn try_defer(&self) -> bool {
        let try_once = || {
            let answer = self
                .one(&mut self.agent.client().ok()?, 0, &json!({ "placement": "cloud" }))
                .ok()?;
            (answer.placement == "cloud").then_some(())
        };
        try_once().is_some()
    }

    /// Ends everything, or leaves it running.
    ///
    /// # Errors
    /// Something does not end in order.
    pub fn finish(self, keep: bool) -> anyhow::Result<()> {
        if !keep {
            println!(
                "Try next: cargo xtask demo --keep, then send it your own picture (README, \"Five minutes\")."
            );
            return Ok(());
        }
        let Self { mut world, agent, .. } = self;
        world.keep();
        println!("Left running:");
        println!("  agent     http://{}   (pid {})", agent.address(), agent.process().id());
        let cloud_id = world.cloud.process().map_or(0, crate::world::Process::id);
        println!("  cloud     https://{}  (pid {cloud_id})", world.cloud.address());
        println!(
            "  operator  export OUTRIGGER_CONFIG_DIR={}",
            world.operator.config_dir().display()
        );
        println!(
            "Try next: curl http://{}/v2/models/fashion; end both with: kill {} {cloud_id}",
            agent.address(),
            agent.process().id()
        );
        std::mem::forget(agent); // their Drop would end them
        std::mem::forget(world);
        Ok(())
    }
}

fn progress(name: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg:12} {bar:30} {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(len as u64).with_message(name.to_owned());
    bar.with_style(style.expect("a valid template"))
}

fn accuracy(answers: &[Asked]) -> f64 {
    answers.iter().filter(|a| a.right).count() as f64 / answers.len().max(1) as f64
}

fn latencies(answers: &[Asked]) -> Vec<Duration> {
    answers.iter().map(|a| a.latency).collect()
}

fn by_placement(answers: &[Asked]) -> BTreeMap<String, Vec<Duration>> {
    let mut groups: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for answer in answers {
        groups.entry(answer.placement.clone()).or_default().push(answer.latency);
    }
    groups
}
