//! Whom deferrals are asked of: carries out what `edge::balance` decides. [`Nodes::keep`] keeps the
//! connections, [`Nodes::ask`] asks over them.

use super::deferral::{self, CloudAnswer};
use super::listed::Listed;
use super::pulse::{self, Waiting};
use super::way::Own;
use super::{Question, Way, explained};
use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::identity::IdentityFiles;
use ::link::connection::Connection;
use edge::balance::{ATTEMPTS_MAX, Action, Balance, BalancePolicy, Outcome, Peer};
use edge::offload::Grant;
use edge::paths::LinkCounters;
use protocol::id::{ContentHash, NodeId};
use protocol::limits::DEADLINE_MAX_MS;
use protocol::problem::{Problem, ProblemCode};
use protocol::trace::TraceContext;
use protocol::wire::{DesiredState, NodeState};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How the control node is called among the nodes.
pub(crate) const CONTROL: &str = "control";
/// A node that does not answer a handshake within this is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A connection that a better one has replaced is closed after its last answer; none takes longer.
const DRAIN_PATIENCE: Duration = Duration::from_millis(DEADLINE_MAX_MS as u64);
/// Where only the connection was lost, a request waits so long for the next one.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// The nodes, and the connections to some of them.
pub(super) struct Nodes {
    known: Mutex<Known>,
    identity: IdentityFiles,
    ca_hash: ContentHash,
    policy: config::Link,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    /// Rung when [`Balance::poll_action`] may have something to say.
    changed: Notify,
    /// Rung for all who wait when there is one more connection.
    connected: Notify,
}

struct Known {
    balance: Balance,
    listed: Listed,
    ways: BTreeMap<NodeId, Way>,
    lines: BTreeMap<Peer, Arc<Line>>,
}

/// A connection over which requests are asked.
struct Line {
    connection: Connection,
    waiting: Waiting,
}

/// An attempt that brought no answer.
struct Tried {
    peer: Peer,
    line: Arc<Line>,
    outcome: Outcome,
}

impl Tried {
    fn of(attempt: &Attempt<'_>) -> Self {
        let Attempt { peer, line, outcome, .. } = attempt;
        Self { peer: peer.clone(), line: line.clone(), outcome: *outcome }
    }

    /// Whether the node is connected anew after its connection was lost.
    fn is_back(&self, known: &Known) -> bool {
        let line = known.lines.get(&self.peer);
        self.outcome == Outcome::Dead && line.is_some_and(|line| !Arc::ptr_eq(line, &self.line))
    }
}

/// One attempt. Its end is reported to the balance, also where nobody waits for it any more.
struct Attempt<'a> {
    nodes: &'a Nodes,
    peer: Peer,
    line: Arc<Line>,
    outcome: Outcome,
}

impl Nodes {
    /// What was remembered of the nodes; nobody is connected yet.
    pub(super) fn open(
        identity: &IdentityFiles,
        policy: &config::Link,
        clock: &Arc<Clock>,
        counters: &Arc<Counters>,
    ) -> Arc<Self> {
        let enrolment = identity.enrolment().ok().flatten();
        let device = enrolment.as_ref().map_or("", |enrolment| enrolment.device.as_str());
        let draw = ContentHash::of(device.as_bytes());
        let seed = u64::from_str_radix(&draw.to_string()[..16], 16).unwrap_or(0); // it is hexadecimal
        let ca_hash = enrolment.as_ref().map_or(draw, |enrolment| enrolment.ca_hash);
        let listed = Listed::read(identity.folder(), ca_hash).unwrap_or_else(|error| {
            counters.nodes_not_kept(&error.to_string());
            Listed::default()
        });
        let rules = BalancePolicy { warm: policy.nodes.max(1), ..Default::default() };
        let mut balance = Balance::new(rules, seed);
        balance.handle_peers(peers(&listed));
        let known = Known { balance, listed, ways: BTreeMap::new(), lines: BTreeMap::new() };
        Arc::new(Self {
            known: Mutex::new(known),
            identity: identity.clone(),
            ca_hash,
            policy: policy.clone(),
            clock: clock.clone(),
            counters: counters.clone(),
            changed: Notify::new(),
            connected: Notify::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn can_ask(&self) -> bool {
        self.known().balance.can_ask()
    }

    /// What the nearest of the connections counts.
    pub(super) fn link(&self) -> Option<LinkCounters> {
        let known = self.known();
        let nearest = known.lines.values().min_by_key(|line| line.connection.rtt())?.clone();
        drop(known);
        let counts = nearest.connection.counts();
        Some(LinkCounters {
            connection: nearest.connection.stable_id() as u64,
            round_trip: nearest.connection.rtt(),
            window_bytes: counts.window_bytes,
            sent_packets: counts.sent_packets,
            lost_packets: counts.lost_packets,
        })
    }

    /// Who they are, how they stand, and what carries the connection, if there is one.
    pub(super) fn describe(&self) -> Vec<(String, &'static str, Option<&'static str>)> {
        let known = self.known();
        let describe = |(peer, state)| {
            let carrier = known.lines.get(&peer).map(|line| line.connection.carrier().as_str());
            (name(&peer).to_owned(), state, carrier)
        };
        known.balance.describe(Instant::now()).into_iter().map(describe).collect()
    }

    /// Asks one node, and where that dies, drains or is full before it answers, another.
    pub(super) async fn ask(
        &self,
        question: &Question<'_>,
        grant: Grant,
    ) -> Result<CloudAnswer, Problem> {
        let deadline = Instant::now() + grant.wait;
        let on_wire = grant.wait - grant.cloud;
        let mut tried: Option<Tried> = None;
        let mut last = Problem::new(ProblemCode::Unreachable, "no node of the cloud is connected")
            .hint("outrigger-agent status tells why");
        for attempts in 1..=ATTEMPTS_MAX {
            let begun = match &tried {
                Some(tried) if matches!(tried.outcome, Outcome::Dead | Outcome::Draining) => {
                    self.begin_again(tried, deadline).await
                }
                tried => self.begin(tried.as_ref()),
            };
            let Some(mut attempt) = begun else { break };
            if tried.is_some() {
                self.counters.asked_again(&last);
            }
            let carrier = attempt.line.connection.carrier().as_str();
            let mut part = question.trace.deferral(name(&attempt.peer), carrier, attempts);
            let asked = attempt.ask(question, on_wire, deadline, part.context()).await;
            part.end(asked.as_ref().map(drop));
            drop(part);
            match asked {
                Ok(answer) => return Ok(CloudAnswer { attempts, ..answer }),
                Err(problem) => last = problem,
            }
            if !attempt.outcome.may_be_asked_again() {
                break;
            }
            tried = Some(Tried::of(&attempt));
        }
        Err(last)
    }

    fn begin(&self, tried: Option<&Tried>) -> Option<Attempt<'_>> {
        let now = Instant::now();
        let mut known = self.known();
        // Where only the connection was lost, and there is another, the same node may be asked.
        let barred = tried.filter(|tried| !tried.is_back(&known)).map(|tried| &tried.peer);
        let peer = known.balance.choose(barred, entropy(), now)?;
        let Some(line) = known.lines.get(&peer).cloned() else {
            known.balance.handle_outcome(&peer, Outcome::Cancelled, entropy(), now);
            return None; // the connection has just ended
        };
        line.waiting.begin();
        Some(Attempt { nodes: self, peer, line, outcome: Outcome::Cancelled })
    }

    /// Another attempt after the first node died: of one that is connected, or will be in time.
    async fn begin_again(&self, tried: &Tried, deadline: Instant) -> Option<Attempt<'_>> {
        let reconnected = deadline.min(Instant::now() + RECONNECT_PATIENCE);
        loop {
            let connected = self.connected.notified(); // before it is looked, so that none is missed
            if let Some(attempt) = self.begin(Some(tried)) {
                return Some(attempt);
            }
            let until = match self.known().balance.may_come(&tried.peer) {
                true => deadline,
                false if tried.outcome == Outcome::Dead => reconnected,
                false => return None,
            };
            tokio::time::timeout_at(until.into(), connected).await.ok()?;
        }
    }

    /// Keeps the connections as the balance wants them, until it is dropped.
    pub(super) async fn keep(
        self: Arc<Self>,
        mut desired: watch::Receiver<Option<DesiredState>>,
        mut control: watch::Receiver<Option<Connection>>,
    ) {
        loop {
            if let Some(state) = &*desired.borrow_and_update() {
                self.list(Listed::of(state));
            }
            self.attach_control(control.borrow_and_update().clone());
            while let Some(action) = self.next_action() {
                match action {
                    Action::Connect(node) => drop(tokio::spawn(self.clone().connect(node))),
                    Action::Disconnect(node) => self.disconnect(&node),
                }
            }
            let timeout = self.known().balance.poll_timeout(Instant::now());
            let timeout = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                changed = desired.changed() => changed.is_err(),
                changed = control.changed() => changed.is_err(),
                () = self.changed.notified() => false,
                () = timeout => false,
            };
            if ended {
                return; // the agent is shutting down
            }
        }
    }

    fn next_action(&self) -> Option<Action> {
        self.known().balance.poll_action(Instant::now())
    }

    /// From now on these can be asked.
    fn list(&self, listed: Listed) {
        if self.known().listed == listed {
            return;
        }
        if let Err(error) = listed.write(self.identity.folder(), self.ca_hash) {
            self.counters.nodes_not_kept(&error.to_string());
        }
        let mut known = self.known();
        known.balance.handle_peers(peers(&listed));
        let stays = |node: &NodeId, way: &mut Way| listed.nodes.get(node) == Some(&way.address);
        known.ways.retain(stays);
        known.listed = listed;
    }

    /// Requests may go over the connection to the control node.
    fn attach_control(self: &Arc<Self>, connection: Option<Connection>) {
        let connection = connection.filter(|connection| connection.close_reason().is_none());
        let Some(connection) = connection else { return };
        let mut known = self.known();
        let same = |line: &Arc<Line>| line.connection.stable_id() == connection.stable_id();
        if !known.lines.get(&Peer::Control).is_some_and(same) {
            let line = self.attach(&mut known, Peer::Control, connection);
            let nodes = self.clone();
            tokio::spawn(async move { nodes.watch(&Peer::Control, &line).await });
        }
        known.balance.handle_connected(&Peer::Control);
    }

    fn attach(&self, known: &mut Known, peer: Peer, connection: Connection) -> Arc<Line> {
        let line = Arc::new(Line { connection, waiting: Waiting::default() });
        known.balance.handle_connected(&peer);
        if let Some(old) = known.lines.insert(peer, line.clone()) {
            tokio::spawn(drain(old));
        }
        self.connected.notify_waiters();
        line
    }

    /// The way to a node that is listed.
    fn way(&self, node: &NodeId) -> Option<Way> {
        let mut known = self.known();
        let address = known.listed.nodes.get(node)?.clone();
        let way = known.ways.entry(node.clone());
        Some(way.or_insert_with(|| Way::new(address, &self.policy)).clone())
    }

    /// Connects to a node, and stays until the connection, or the better one after it, has ended.
    async fn connect(self: Arc<Self>, node: NodeId) {
        let peer = Peer::Node(node.clone());
        let Some(way) = self.way(&node) else { return self.lost(&peer) }; // not listed any more
        let mut connection = match self.reach(&node, &way).await {
            Ok(connection) => connection,
            Err(why) => {
                self.counters.node_lost(&node, &why);
                return self.lost(&peer);
            }
        };
        loop {
            let carrier = connection.carrier().as_str();
            self.counters.node_connected(&node, &way.address.to_string(), carrier);
            let line = self.attach(&mut self.known(), peer.clone(), connection);
            self.changed.notify_one();
            let own = || Own::read(&self.identity).ok();
            tokio::select! {
                () = self.watch(&peer, &line) => return,
                next = way.better_node(&line.connection, &node, own, &self.clock) => connection = next,
            }
        }
    }

    async fn reach(&self, node: &NodeId, way: &Way) -> Result<Connection, String> {
        let own = Own::read(&self.identity).map_err(|error| explained(&error.into()))?;
        let connecting = way.connect_node(node, own, &self.clock);
        match tokio::time::timeout(CONNECT_PATIENCE, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(explained(&error)),
            Err(_) => Err("the node does not answer".into()),
        }
    }

    /// Watches over a connection to its end, and says so.
    async fn watch(&self, peer: &Peer, line: &Arc<Line>) {
        let connection = &line.connection;
        let said = |state: NodeState| {
            let wait = Duration::from_micros(state.wait_us);
            self.known().balance.handle_state(peer, wait, state.draining, Instant::now());
            self.changed.notify_one();
        };
        let max = self.policy.pulse_max();
        let why = tokio::select! {
            biased; // the pulse ends with its connection too
            ended = connection.closed() => super::explain(&ended),
            () = pulse::watch(connection, &line.waiting, said, || self.counters.path_changed(), max) => {
                "nothing is heard from it".to_owned()
            }
        };
        // What still waits there learns of it by this.
        connection.close(ProblemCode::None, "");
        if let Peer::Node(node) = peer {
            self.counters.node_lost(node, &why);
        }
        let mut known = self.known();
        if known.lines.get(peer).is_some_and(|current| Arc::ptr_eq(current, line)) {
            known.lines.remove(peer);
            drop(known);
            self.lost(peer);
        }
    }

    /// Those that are up.
    pub(super) fn connections(&self) -> Vec<Connection> {
        self.known().lines.values().map(|line| line.connection.clone()).collect()
    }

    fn lost(&self, peer: &Peer) {
        self.known().balance.handle_disconnected(peer, entropy(), Instant::now());
        self.changed.notify_one();
    }

    fn disconnect(&self, node: &NodeId) {
        if let Some(line) = self.known().lines.get(&Peer::Node(node.clone())) {
            line.connection.close(ProblemCode::None, ""); // who watches says that it ended
        }
    }
}

/// Closes a connection that takes no new requests, once the last one there is answered.
async fn drain(line: Arc<Line>) {
    let _ = tokio::time::timeout(DRAIN_PATIENCE, line.waiting.ended()).await;
    line.connection.close(ProblemCode::None, "");
}

fn peers(listed: &Listed) -> impl Iterator<Item = Peer> {
    let control = (!listed.nodes_only).then_some(Peer::Control);
    control.into_iter().chain(listed.nodes.keys().cloned().map(Peer::Node))
}

fn name(peer: &Peer) -> &str {
    match peer {
        Peer::Control => CONTROL,
        Peer::Node(id) => id.as_str(),
    }
}

fn entropy() -> u64 {
    u64::from_le_bytes(::link::entropy())
}

impl Attempt<'_> {
    async fn ask(
        &mut self,
        question: &Question<'_>,
        on_wire: Duration,
        deadline: Instant,
        context: Option<&TraceContext>,
    ) -> Result<CloudAnswer, Problem> {
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        let budget = left.saturating_sub(on_wire); // what the cloud answers later arrives too late
        let ask = deferral::ask(&self.line.connection, question, budget, context);
        let result = tokio::time::timeout_at(deadline.into(), ask).await;
        let result = result.unwrap_or_else(|_| Err(late()));
        self.outcome = match &result {
            Ok(answer) => Outcome::Answered { took: began.elapsed(), wait: answer.wait },
            Err(problem) => outcome(problem),
        };
        result
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.line.waiting.end();
        let mut known = self.nodes.known();
        known.balance.handle_outcome(&self.peer, self.outcome, entropy(), Instant::now());
        drop(known);
        if self.outcome.may_be_asked_again() {
            self.nodes.changed.notify_one();
        }
    }
}

fn late() -> Problem {
    Problem::new(ProblemCode::DeadlineExceeded, "the cloud cannot answer before the deadline")
        .hint("allow more time with the parameter \"timeout\" (microseconds)")
}

/// What a failure says of the node.
fn outcome(problem: &Problem) -> Outcome {
    match problem.code {
        ProblemCode::Overloaded => {
            Outcome::Full(Duration::from_millis(problem.retry_after_ms.max(1).into()))
        }
        ProblemCode::GoingAway => Outcome::Draining,
        ProblemCode::Unreachable => Outcome::Dead,
        ProblemCode::InvalidRequest
        | ProblemCode::TooLarge
        | ProblemCode::NotFound
        | ProblemCode::Unauthorised => Outcome::Refused,
        ProblemCode::None
        | ProblemCode::Protocol
        | ProblemCode::DeadlineExceeded
        | ProblemCode::InferenceFailed
        | ProblemCode::Internal => Outcome::Failed,
    }
}
