//! Three inference nodes under load, and what may happen to them: one is killed, one hangs, one is
//! told to stop, the control node is killed, a node and the agent are started anew while it is away.
//! No request may be lost: each is answered by the cloud inside its deadline.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::fashion::{Images, ask};
use crate::http::HttpClient;
use crate::world::{Agent, AgentOptions, Node, World, eventually};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How much is asked around each event.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Requests before the event, and at least as many after it.
    pub requests: u64,
    /// How often everything happens.
    pub rounds: u32,
}

impl Amount {
    /// The whole proof.
    pub const WHOLE: Self = Self { requests: 1500, rounds: 5 };
    /// To see that it holds.
    pub const SHORT: Self = Self { requests: 150, rounds: 1 };
}

/// The deadline of every request.
const DEADLINE: Duration = Duration::from_secs(2);
/// Callers at the same time.
const CALLERS: usize = 4;
/// For what is to come back.
const PATIENCE: Duration = Duration::from_secs(90);

/// A fleet of one device, whose deferrals go to inference nodes.
pub struct Fleet {
    /// Its control node and its folder.
    pub world: World,
    /// The inference nodes.
    pub nodes: Vec<Node>,
    images: Images,
}

impl Fleet {
    /// Starts a control node that answers nothing itself, and so many nodes.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn start(nodes: usize) -> anyhow::Result<Self> {
        let world = World::start_with(&["--role", "control"])?;
        world.ship_fashion()?;
        let nodes: Vec<Node> = (1..=nodes)
            .map(|number| Node::join(&world, &format!("node-{number}")))
            .collect::<anyhow::Result<_>>()?;
        for node in &nodes {
            node.wait_state(&world.operator, "ready")?;
        }
        Ok(Self { world, nodes, images: Images::test()? })
    }

    /// An agent that has the model, and is connected to as many nodes as it keeps.
    ///
    /// # Errors
    /// It never is.
    pub fn agent(&self) -> anyhow::Result<Agent> {
        let agent = self.world.agent("device", &AgentOptions::default())?;
        agent.wait_active("fashion", 1)?;
        self.wait_nodes(&agent, self.nodes.len().min(2))?;
        Ok(agent)
    }

    /// Waits until the agent is connected to so many nodes.
    ///
    /// # Errors
    /// It never is.
    pub fn wait_nodes(&self, agent: &Agent, least: usize) -> anyhow::Result<()> {
        agent.wait_until(&format!("{least} nodes"), |status| connected(status).len() >= least)?;
        Ok(())
    }

    /// Asks for the cloud once; the verdict.
    ///
    /// # Errors
    /// No answer at all.
    pub fn ask(&self, client: &mut HttpClient, index: usize) -> anyhow::Result<Value> {
        ask_cloud(&self.images, client, index)
    }

    /// The index of the node with this id.
    fn position(&self, id: &str) -> anyhow::Result<usize> {
        let entries = self.world.operator.json(&["node", "list"])?;
        let entry = entries.as_array().and_then(|all| all.iter().find(|n| n["id"] == id));
        let name = entry.map(|entry| entry["name"].clone()).context("an unknown node")?;
        let found = self.nodes.iter().position(|node| node.name() == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// The first node that the agent is connected to.
    fn in_use(&self, agent: &Agent) -> anyhow::Result<usize> {
        let status = agent.wait_until("a node", |status| !connected(status).is_empty())?;
        self.position(connected(&status).first().context("no node")?)
    }
}

/// The nodes that an agent's status names as connected.
pub fn connected(status: &Value) -> Vec<String> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let open = nodes.filter(|node| node["state"] == "connected" && node["node"] != "control");
    open.filter_map(|node| Some(node["node"].as_str()?.to_owned())).collect()
}

/// What became of the requests around one event.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    lost: AtomicU64,
    asked_again: AtomicU64,
    slowest: Mutex<Duration>,
    first_loss: Mutex<Option<String>>,
}

impl Tally {
    fn take(&self, result: anyhow::Result<Value>, took: Duration) {
        let answered = result.and_then(|verdict| {
            ensure!(verdict["placement"] == "cloud", "answered otherwise: {verdict}");
            ensure!(took <= DEADLINE, "after {took:?}: {verdict}");
            Ok(verdict)
        });
        match answered {
            Ok(verdict) => {
                self.answered.fetch_add(1, SeqCst);
                self.asked_again.fetch_add(u64::from(verdict["attempts"] == 2), SeqCst);
            }
            Err(error) => {
                self.lost.fetch_add(1, SeqCst);
                if let Ok(mut first) = self.first_loss.lock() {
                    first.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        if let Ok(mut slowest) = self.slowest.lock() {
            *slowest = slowest.max(took);
        }
    }

    fn calls(&self) -> u64 {
        self.answered.load(SeqCst) + self.lost.load(SeqCst)
    }

    fn row(&self, round: u32, event: &str) -> Row {
        let slowest = self.slowest.lock().map(|slowest| *slowest).unwrap_or_default();
        Row(vec![
            ("round", json!(round)),
            ("event", json!(event)),
            ("requests", json!(self.calls())),
            ("lost", json!(self.lost.load(SeqCst))),
            ("asked_again", json!(self.asked_again.load(SeqCst))),
            ("slowest_ms", json!(rounded(slowest.as_secs_f64() * 1e3))),
        ])
    }
}

/// Callers who ask without a pause, before, while and after something happens.
fn under_load(
    images: &Images,
    agent: &Agent,
    requests: u64,
    event: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Tally> {
    let (tally, enough) = (Tally::default(), AtomicBool::new(false));
    let clients: Vec<HttpClient> =
        (0..CALLERS).map(|_| agent.client()).collect::<anyhow::Result<_>>()?;
    std::thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let (tally, enough) = (&tally, &enough);
            scope.spawn(move || {
                for index in (number..).step_by(CALLERS) {
                    let began = Instant::now();
                    tally.take(ask_cloud(images, &mut client, index), began.elapsed());
                    if enough.load(SeqCst) {
                        break;
                    }
                }
            });
        }
        let wait = |least: u64| {
            eventually("requests", PATIENCE, || (tally.calls() >= least).then_some(()))
        };
        let result =
            wait(requests).and_then(|()| event()).and_then(|()| wait(tally.calls() + requests));
        enough.store(true, SeqCst);
        result
    })?;
    Ok(tally)
}

/// Everything that happens to a fleet, one after the other.
///
/// # Errors
/// A program that does not come back, with what it printed.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let mut fleet = Fleet::start(3)?;
    let mut agent = fleet.agent()?;
    let (mut rows, mut lost, mut losses) = (Vec::new(), 0, Vec::new());
    for round in 1..=amount.rounds {
        let mut note = |event: &str, tally: &Tally| {
            rows.push(tally.row(round, event));
            lost += tally.lost.load(SeqCst);
            let first = tally.first_loss.lock().map(|first| first.clone()).unwrap_or_default();
            losses.extend(first.map(|why| format!("{event}: {why}")));
        };
        let images = Images::test()?;
        let load = |agent: &Agent, event: &mut dyn FnMut() -> anyhow::Result<()>| {
            under_load(&images, agent, amount.requests, event)
        };

        let at = fleet.in_use(&agent)?;
        let mut kill = || {
            fleet.nodes[at].kill();
            Ok(())
        };
        note("a node is killed", &load(&agent, &mut kill)?);
        note("it comes back", &load(&agent, &mut || fleet.nodes[at].restart())?);
        fleet.wait_nodes(&agent, 2)?;

        let at = fleet.in_use(&agent)?;
        let mut hang = || fleet.nodes[at].process().context("no process")?.pause();
        note("a node hangs", &load(&agent, &mut hang)?);
        fleet.nodes[at].process().context("no process")?.resume()?;
        fleet.wait_nodes(&agent, 2)?;

        let at = fleet.in_use(&agent)?;
        let mut stop = || {
            let code = fleet.nodes[at].stop()?;
            ensure!(code == Some(0), "the node ended with {code:?}");
            Ok(())
        };
        note("a node is told to stop", &load(&agent, &mut stop)?);
        fleet.nodes[at].restart()?;
        fleet.wait_nodes(&agent, 2)?;

        let mut kill_control = || {
            fleet.world.cloud.kill();
            Ok(())
        };
        note("the control node is killed", &load(&agent, &mut kill_control)?);
        let mut restart_node = || {
            fleet.nodes[0].kill();
            fleet.nodes[0].restart()
        };
        note("a node is started anew without it", &load(&agent, &mut restart_node)?);
        let state_dir = agent.kill();
        agent = Agent::start(&state_dir, &AgentOptions::default())?;
        fleet.wait_nodes(&agent, 1)?;
        note("the agent too", &load(&agent, &mut || Ok(()))?);
        note("the control node is back", &load(&agent, &mut || fleet.world.cloud.restart())?);
        for node in &fleet.nodes {
            node.wait_state(&fleet.world.operator, "ready")?;
        }
        agent.wait_active("fashion", 1)?;
    }
    ensure!(
        lost == 0,
        "{lost} requests were lost; the first of each event:\n{}\nthe agent said:\n{}",
        losses.join("\n"),
        agent.process().output()
    );
    let goals = vec![Goal::at_most("requests lost", 0.0, f64::from(u32::try_from(lost)?))];
    Ok(BenchReport { name: "nodes", rows, goals })
}

/// Asks for the cloud once; the verdict.
fn ask_cloud(images: &Images, client: &mut HttpClient, index: usize) -> anyhow::Result<Value> {
    let timeout_us = u64::try_from(DEADLINE.as_micros())?;
    let parameters = json!({ "placement": "cloud", "timeout": timeout_us });
    let response = ask(client, images.pixels(index % images.len()), &parameters)?;
    ensure!(response.status == 200, "{}: {}", response.status, response.json()?);
    Ok(response.split()?.0["parameters"].clone())
}
