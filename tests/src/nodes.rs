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

    /// The node that answers most of the agent's requests just now.
    fn in_use(&self, agent: &Agent) -> anyhow::Result<usize> {
        let admin = std::fs::read_to_string(self.world.cloud.data_dir().join("admin.key"))?;
        let (key, _) = admin.trim().rsplit_once('.').context("no key")?;
        let answered = || -> anyhow::Result<Vec<u64>> {
            self.nodes.iter().map(|node| node.answered("fashion", key)).collect()
        };
        let (before, mut client) = (answered()?, agent.client()?);
        for index in 0..40 {
            self.ask(&mut client, index)?;
        }
        let grown = answered()?.into_iter().zip(before).map(|(after, before)| after - before);
        let most = grown.enumerate().max_by_key(|(_, answers)| *answers);
        Ok(most.context("no node")?.0)
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

/// A fleet and what has happened to it.
struct Course {
    fleet: Fleet,
    agent: Agent,
    images: Images,
    requests: u64,
    round: u32,
    rows: Vec<Row>,
    lost: u64,
    losses: Vec<String>,
    /// Requests that were asked again.
    rescued: u64,
}

impl Course {
    /// Something happens under load.
    fn happens(
        &mut self,
        what: &str,
        event: impl FnOnce(&mut Fleet) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let fleet = &mut self.fleet;
        let tally = under_load(&self.images, &self.agent, self.requests, || event(fleet))?;
        self.rows.push(tally.row(self.round, what));
        self.lost += tally.lost.load(SeqCst);
        self.rescued += tally.asked_again.load(SeqCst);
        let first = tally.first_loss.lock().map(|first| first.clone()).unwrap_or_default();
        self.losses.extend(first.map(|why| format!("{what}: {why}")));
        Ok(())
    }

    fn one_dies(&mut self) -> anyhow::Result<()> {
        let at = self.fleet.in_use(&self.agent)?;
        self.happens("a node is killed", |fleet| {
            fleet.nodes[at].kill();
            Ok(())
        })?;
        self.happens("it comes back", |fleet| fleet.nodes[at].restart())?;
        self.fleet.wait_nodes(&self.agent, 2)
    }

    fn one_hangs(&mut self) -> anyhow::Result<()> {
        let at = self.fleet.in_use(&self.agent)?;
        self.happens("a node hangs", |fleet| {
            fleet.nodes[at].process().context("no process")?.pause()
        })?;
        self.fleet.nodes[at].process().context("no process")?.resume()?;
        self.fleet.wait_nodes(&self.agent, 2)
    }

    fn one_drains(&mut self) -> anyhow::Result<()> {
        let at = self.fleet.in_use(&self.agent)?;
        self.happens("a node is told to stop", |fleet| {
            let code = fleet.nodes[at].stop()?;
            ensure!(code == Some(0), "the node ended with {code:?}");
            Ok(())
        })?;
        self.fleet.nodes[at].restart()?;
        self.fleet.wait_nodes(&self.agent, 2)
    }

    fn the_control_node_goes(mut self) -> anyhow::Result<Self> {
        self.happens("the control node is killed", |fleet| {
            fleet.world.cloud.kill();
            Ok(())
        })?;
        self.happens("a node is started anew without it", |fleet| {
            fleet.nodes[0].kill();
            fleet.nodes[0].restart()
        })?;
        let state_dir = self.agent.kill();
        self.agent = Agent::start(&state_dir, &AgentOptions::default())?;
        self.fleet.wait_nodes(&self.agent, 1)?;
        self.happens("the agent too", |_| Ok(()))?;
        self.happens("the control node is back", |fleet| fleet.world.cloud.restart())?;
        for node in &self.fleet.nodes {
            node.wait_state(&self.fleet.world.operator, "ready")?;
        }
        self.agent.wait_active("fashion", 1)?;
        self.fleet.wait_nodes(&self.agent, 2)?;
        Ok(self)
    }
}

/// Everything that can happen to a fleet, one after the other.
///
/// # Errors
/// A program that does not come back, or requests that were lost; with what was said.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let fleet = Fleet::start(3)?;
    let mut course = Course {
        agent: fleet.agent()?,
        fleet,
        images: Images::test()?,
        requests: amount.requests,
        round: 0,
        rows: Vec::new(),
        lost: 0,
        losses: Vec::new(),
        rescued: 0,
    };
    for round in 1..=amount.rounds {
        course.round = round;
        course.one_dies()?;
        course.one_hangs()?;
        course.one_drains()?;
        course = course.the_control_node_goes()?;
    }
    let Course { lost, losses, agent, rows, rescued, .. } = course;
    let said = || format!("{}\n{}", losses.join("\n"), agent.process().output());
    ensure!(lost == 0, "{lost} requests were lost:\n{}", said());
    let rescued = f64::from(u32::try_from(rescued)?);
    let goals = vec![
        Goal::at_most("requests lost", 0.0, f64::from(u32::try_from(lost)?)),
        Goal::at_least("requests asked again", 1.0, rescued),
    ];
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
