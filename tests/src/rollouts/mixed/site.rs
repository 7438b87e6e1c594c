//! The fleet: its cloud, its devices of both kinds, and who asks the real ones.

use super::watch::{End, watch};
use super::{Amount, Case, Terms};
use crate::fashion::versions::{Flaw, Versions};
use crate::fashion::{self, Images};
use crate::http::HttpClient;
use crate::rollouts::answered_by;
use crate::world::{Agent, AgentOptions, Api, Publisher, World, eventually};
use anyhow::{Context, ensure};
use fleet_sim::behaviour::{Behaviour, Behaviours};
use fleet_sim::{Nature, Place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The model.
const MODEL: &str = "fashion";
/// Real agents.
const REAL: usize = 3;
/// What the median simulated device is asked in a minute: so much that a version is judged in seconds.
const PER_MIN: f64 = 6000.0;
/// Between two requests to a real agent.
const PAUSE: Duration = Duration::from_millis(10);
/// For all devices to have what they are assigned.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Site {
    pub(super) world: World,
    api: Api,
    fleet: fleet_sim::Fleet,
    /// The ids of the real agents.
    pub(super) real: BTreeSet<String>,
    /// Which of them has answered with which version.
    answered: Answered,
    maker: Versions,
    stages: String,
    /// The version that all have.
    base: u64,
    _callers: Vec<Caller>,
    _agents: Vec<Agent>,
    _runtime: Runtime,
}

/// Which device has answered with which version.
type Answered = Arc<Mutex<BTreeSet<(String, u64)>>>;

impl Site {
    /// All devices at work with version 1; those after it behave as the cases say.
    pub(super) fn start(amount: &Amount, terms: &Terms, cases: &[Case]) -> anyhow::Result<Self> {
        let world = World::start_in(&[("OUTRIGGER_CLOUD_ROLLOUTS_LOOK_S", "1".into())])?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let fleet = simulated(&world, &runtime, amount, nature(terms, cases))?;
        let maker = Versions::of_demo()?;
        maker.publish(&Publisher::with_keys_of(&world.operator)?, 1, Flaw::None)?;
        world.operator.run(&["model", "assign", "fashion@1", "--all"])?;
        let agents = (1..=REAL).map(|number| real(&world, number, terms));
        let agents = agents.collect::<anyhow::Result<Vec<_>>>()?;
        let answered = Answered::default();
        let images = Arc::new(Images::test()?);
        let called = |(id, agent): &(String, Agent)| {
            Caller::start(agent.address(), id.clone(), images.clone(), answered.clone())
        };
        let callers = agents.iter().map(called).collect();
        let site = Self {
            api: Api::with_key_of(&world.operator)?,
            world,
            fleet,
            real: agents.iter().map(|(id, _)| id.clone()).collect(),
            answered,
            maker,
            stages: format!("{}:{}s,all:5s", amount.canaries, amount.soak_s),
            base: 1,
            _callers: callers,
            _agents: agents.into_iter().map(|(_, agent)| agent).collect(),
            _runtime: runtime,
        };
        site.settle()?;
        Ok(site)
    }

    /// How many devices are simulated, and have not vanished.
    pub(super) fn simulated(&self) -> u64 {
        self.fleet.counts().connected
    }

    /// How many are real.
    pub(super) fn real(&self) -> usize {
        self.real.len()
    }

    /// Rolls a version out, and waits until all devices are in order again.
    pub(super) fn roll_out(&mut self, version: u64, case: &Case) -> anyhow::Result<End> {
        let publisher = Publisher::with_keys_of(&self.world.operator)?;
        self.maker.publish(&publisher, version, case.flaw.unwrap_or(Flaw::None))?;
        let model = format!("{MODEL}@{version}");
        let to: &[&str] =
            if case.flaw.is_some() { &["--all"] } else { &["--to", "kind=simulated"] };
        let plan = ["--stages", &self.stages, "--strata", "kind", "--requests", "400"];
        let pace = ["--rate", "6000", "--deadline", case.deadline, "--approve-from", "1000"];
        let asked = [&["rollout", "start", &model][..], to, &plan, &pace].concat();
        let begun = self.world.operator.json(&asked)?;
        let id = begun["id"].as_str().context("a roll-out without an id")?;
        let end = watch(self, id, version)?;
        if end.phase == "done" {
            self.base = version;
        }
        self.settle().with_context(|| format!("after {}", case.name))?;
        Ok(end)
    }

    /// Waits until every device that is there answers with the version that is assigned.
    fn settle(&self) -> anyhow::Result<()> {
        let mut last = Value::Null;
        let settled = eventually("all devices in order", PATIENCE, || {
            let devices = self.devices().ok()?;
            let there = devices.iter().filter(|device| device["online"] == true);
            last =
                json!(there.clone().find(|device| reported(device)["active_version"] != self.base));
            (last.is_null() && there.count() as u64 == self.simulated() + REAL as u64).then_some(())
        });
        settled.with_context(|| format!("not on version {}: {last:#}", self.base))
    }

    /// What the cloud says of its devices.
    pub(super) fn devices(&self) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.get("/v1/devices")?;
        match answer["devices"].take() {
            Value::Array(devices) => Ok(devices),
            other => anyhow::bail!("no list of devices: {other}"),
        }
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.api.accepted("GET", path, b"")?.body)?)
    }

    /// On how many devices a version has ever answered, by what they know themselves.
    pub(super) fn ever_answered(&self, version: u64) -> usize {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let real = answered.iter().filter(|(_, own)| *own == version).count();
        real + self.fleet.answered(version)
    }
}

/// What a device says of the model.
pub(super) fn reported(device: &Value) -> &Value {
    let models = device["reported"].as_array();
    models.and_then(|all| all.iter().find(|own| own["model"] == MODEL)).unwrap_or(&Value::Null)
}

fn nature(terms: &Terms, cases: &[Case]) -> Nature {
    let mut behaviours = Behaviours::default();
    behaviours.set(1, Behaviour::quick());
    for (version, case) in (2..).zip(cases) {
        behaviours.set(version, case.new.clone());
    }
    let behaviours = Arc::new(behaviours);
    Nature { behaviours, per_min: PER_MIN, shadows: terms.shadows, ..Nature::default() }
}

fn simulated(
    world: &World,
    runtime: &Runtime,
    amount: &Amount,
    nature: Nature,
) -> anyhow::Result<fleet_sim::Fleet> {
    let token = world.fleet_token(amount.simulated, &["--set", "kind=simulated"])?;
    let place = Place::at(world.cloud.address().parse()?);
    let mut fleet = runtime.block_on(fleet_sim::Fleet::enrol(place, &token, amount.simulated))?;
    fleet.set_nature(nature);
    let _inside = runtime.enter();
    fleet.start(amount.simulated);
    Ok(fleet)
}

/// A real agent and its id.
fn real(world: &World, number: usize, terms: &Terms) -> anyhow::Result<(String, Agent)> {
    let options = AgentOptions { config: terms.config.to_owned() };
    let agent = world.agent(&format!("real-{number}"), &options)?;
    agent.wait_active(MODEL, 1)?;
    let id = agent.status()?["device"].as_str().context("an agent without an id")?.to_owned();
    ensure!(!id.is_empty(), "an agent without an id");
    world.operator.run(&["device", "label", &id, "kind=real"])?;
    Ok((id, agent))
}

/// An application that asks a real agent about one image after the other, until it is dropped.
struct Caller {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Caller {
    fn start(address: SocketAddr, id: String, images: Arc<Images>, answered: Answered) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            let mut client = None;
            for turn in (0..).take_while(|_| !over.load(Relaxed)) {
                if let Some(version) = ask(&mut client, address, images.pixels(turn % images.len()))
                {
                    let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
                    answered.insert((id.clone(), version));
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // what it saw is seen
        }
    }
}

/// Asks once, over a connection that is made anew where there is none; the version that answered.
fn ask(client: &mut Option<HttpClient>, address: SocketAddr, pixels: &[u8]) -> Option<u64> {
    let mut connected = client.take().or_else(|| HttpClient::connect(address).ok())?;
    let parameters = json!({ "timeout": 20_000_000 });
    let response = fashion::ask(&mut connected, pixels, &parameters).ok()?;
    *client = Some(connected);
    answered_by(&response)
}
