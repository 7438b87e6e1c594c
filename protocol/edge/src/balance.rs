//! Which node of the cloud a deferral is asked of, which nodes stay connected, and when one is left
//! alone.
//!
//! **Choice**: of two eligible nodes picked at random the cheaper one is asked (Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", 2001). What one costs is
//! `(latency + wait) * (outstanding + 1)`, where `latency` is this device's own peak-EWMA of answers
//! (`latency`), `wait` what the node itself last said that a new request would wait, and
//! `outstanding` what this device has under way there.
//!
//! **Outliers**: a node is ejected after several failures in a row, when it turns out to be dead, or
//! when its answers take several times as long as the others' for a while. It is probed back after a
//! back-off that grows with each ejection: first by a new connection, then by one request at a time,
//! until one is answered. As long as there is any other way, nobody asks an ejected node; when there
//! is none, the least bad one is asked: whether the cloud is asked at all is the breaker's.
//!
//! **Connections**: a few nodes are kept connected, chosen by the device's own draw (rendezvous
//! hashing), so that a fleet spreads evenly and a node that goes or comes moves only its own devices.

mod latency;
mod node;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use node::{Link, Node};
use protocol::id::NodeId;

/// How often one deferral is asked: of a second node where the first died, drained or was full before
/// it answered. Inference has no effects, so asking twice is safe; more often would be a retry loop.
pub const ATTEMPTS_MAX: u32 = 2;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalancePolicy {
    /// Nodes that are kept connected, beside the control node.
    pub warm: usize,
    /// Failures in a row that eject a node.
    pub failures: u32,
    /// So many times the median of the others, over a while, ejects a node...
    pub slow_factor: u32,
    /// ...unless its answers are faster than this.
    pub slow_floor: Duration,
    /// The first ejection lasts at most so long; each further one twice as long.
    pub eject_base: Duration,
    /// None lasts longer than this.
    pub eject_max: Duration,
}

impl Default for BalancePolicy {
    fn default() -> Self {
        Self {
            warm: 2,
            failures: 3,
            slow_factor: 5,
            slow_floor: Duration::from_millis(20),
            eject_base: Duration::from_secs(1),
            eject_max: Duration::from_secs(60),
        }
    }
}

/// Who can be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// The control node, on the connection that the device keeps with it anyway.
    Control,
    /// An inference node.
    Node(NodeId),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, `took` after it was sent.
    Answered {
        /// From the first byte sent to the last byte received.
        took: Duration,
        /// What the node said that a new request would wait.
        wait: Duration,
    },
    /// It was refused for a reason that lies in the request: the node works.
    Refused,
    /// The node has no room, and asks to be left alone for so long.
    Full(Duration),
    /// The node failed, or was late.
    Failed,
    /// The connection was lost, or nothing is heard from the node any more.
    Dead,
    /// The node is going away.
    Draining,
    /// Nobody waited for the end.
    Cancelled,
}

impl Outcome {
    /// Whether another node may be asked the same.
    pub fn may_be_asked_again(self) -> bool {
        matches!(self, Self::Full(_) | Self::Dead | Self::Draining)
    }
}

/// What is to be done about connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to this node.
    Connect(NodeId),
    /// End the connection to this node; nothing is under way there, or nothing will come of it.
    Disconnect(NodeId),
}

/// All nodes, as one device sees them.
#[derive(Debug)]
pub struct Balance {
    policy: BalancePolicy,
    /// This device's own draw.
    seed: u64,
    peers: BTreeMap<Peer, Node>,
}

impl Balance {
    /// Nobody is known yet. `seed` is this device's own number, and stays the same.
    pub fn new(policy: BalancePolicy, seed: u64) -> Self {
        Self { policy, seed, peers: BTreeMap::new() }
    }

    /// From now on these may be asked. What is known of those that stay is kept; those that left
    /// are disconnected by [`Balance::poll_action`].
    pub fn handle_peers(&mut self, peers: impl IntoIterator<Item = Peer>) {
        let listed: std::collections::BTreeSet<Peer> = peers.into_iter().collect();
        for (peer, node) in &mut self.peers {
            node.listed = listed.contains(peer);
        }
        self.peers.retain(|_, node| node.listed || node.link != Link::Absent);
        for peer in listed {
            let rank = rank(self.seed, &peer);
            let fresh = || Node::new(rank, &self.policy);
            self.peers.entry(peer).or_insert_with(fresh).listed = true;
        }
    }

    /// There is a connection now.
    pub fn handle_connected(&mut self, peer: &Peer) {
        if let Some(node) = self.peers.get_mut(peer) {
            node.connected();
        }
    }

    /// There is no connection any more, or none was made. `entropy` is a random number.
    pub fn handle_disconnected(&mut self, peer: &Peer, entropy: u64, now: Instant) {
        let Some(node) = self.peers.get_mut(peer) else { return };
        let on_purpose = node.link == Link::Closing && !node.draining;
        node.link = Link::Absent;
        node.draining = false;
        if !node.listed {
            self.peers.remove(peer);
        } else if !on_purpose {
            node.eject(entropy, now); // it is tried again after a while
        }
    }

    /// The node said how it is.
    pub fn handle_state(&mut self, peer: &Peer, wait: Duration, draining: bool, now: Instant) {
        if let Some(node) = self.peers.get_mut(peer) {
            node.said(wait, now);
            node.draining |= draining;
        }
    }

    /// Picks who is asked next, and counts it as under way; whoever is told must report the end with
    /// [`Balance::handle_outcome`]. `tried` was asked before, in vain. `None` when nobody is left.
    pub fn choose(&mut self, tried: Option<&Peer>, entropy: u64, now: Instant) -> Option<Peer> {
        let open = |(peer, node): &(&Peer, &Node)| node.is_open() && Some(*peer) != tried;
        let mut from: Vec<(&Peer, &Node)> =
            self.peers.iter().filter(open).filter(|(_, node)| node.is_eligible(now)).collect();
        if from.is_empty() && tried.is_none() {
            from = self.peers.iter().filter(open).collect();
        }
        let (first, second) = two(from.len(), entropy)?;
        let cost = |index: usize| from[index].1.cost_us(now);
        let cheaper = if cost(second) < cost(first) { second } else { first };
        let chosen = from[cheaper].0.clone();
        if let Some(node) = self.peers.get_mut(&chosen) {
            node.outstanding += 1;
        }
        Some(chosen)
    }

    /// Whether another than `tried` may be connected soon.
    pub fn may_come(&self, tried: &Peer) -> bool {
        self.peers.iter().any(|(peer, node)| peer != tried && node.listed)
    }

    /// Whether anybody can be asked.
    pub fn can_ask(&self) -> bool {
        self.peers.values().any(Node::is_open)
    }

    /// How an attempt ended that [`Balance::choose`] began. `entropy` is a random number.
    pub fn handle_outcome(&mut self, peer: &Peer, outcome: Outcome, entropy: u64, now: Instant) {
        let failures = self.policy.failures;
        let Some(node) = self.peers.get_mut(peer) else { return };
        node.outstanding = node.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Answered { took, wait } => {
                node.answered(took, now);
                node.said(wait, now);
                self.eject_slow(peer, entropy, now);
            }
            Outcome::Refused => node.worked(),
            Outcome::Full(pause) => node.full(pause, now),
            Outcome::Failed => {
                if node.failed() >= failures {
                    node.eject(entropy, now);
                }
            }
            Outcome::Dead => node.eject(entropy, now),
            Outcome::Draining => node.draining = true,
            Outcome::Cancelled => {}
        }
    }

    /// Ejects a node whose answers take several times as long as the others', for a while.
    fn eject_slow(&mut self, peer: &Peer, entropy: u64, now: Instant) {
        let others = self.peers.iter().filter(|(other, node)| *other != peer && node.is_open());
        let mut usual: Vec<Duration> = others.filter_map(|(_, node)| node.usual()).collect();
        usual.sort_unstable();
        let Some(median) = usual.get(usual.len() / 2).copied() else { return };
        let beyond = (median * self.policy.slow_factor).max(self.policy.slow_floor);
        if let Some(node) = self.peers.get_mut(peer)
            && node.usual().is_some_and(|usual| usual > beyond)
        {
            node.eject(entropy, now);
        }
    }

    /// What is to be done about connections now; the answer counts as begun.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        self.poll_disconnect(now).or_else(|| self.poll_connect(now))
    }

    /// Nodes by this device's own draw; the control node's connection is not kept here.
    fn ranked(&self) -> Vec<(&NodeId, &Node)> {
        let node = |(peer, node)| match peer {
            &Peer::Control => None,
            Peer::Node(id) => Some((id, node)),
        };
        let mut ranked: Vec<_> = self.peers.iter().filter_map(node).collect();
        ranked.sort_by_key(|(_, node)| node.rank);
        ranked
    }

    fn poll_connect(&mut self, now: Instant) -> Option<Action> {
        let ranked = self.ranked();
        let wanted = ranked.iter().filter(|(_, node)| node.is_wanted(now)).take(self.policy.warm);
        let (id, _) = wanted.into_iter().find(|(_, node)| node.link == Link::Absent)?;
        let id = (*id).clone();
        self.peers.get_mut(&Peer::Node(id.clone()))?.link = Link::Connecting;
        Some(Action::Connect(id))
    }

    fn poll_disconnect(&mut self, now: Instant) -> Option<Action> {
        let ranked = self.ranked();
        let warm = |node: &Node| node.link == Link::Open && node.is_wanted(now);
        let enough = ranked.iter().filter(|(_, node)| warm(node)).count();
        let surplus = |position: usize| position >= self.policy.warm;
        let mut position = 0;
        let found = ranked.iter().find(|(_, node)| {
            let at = position;
            position += usize::from(warm(node));
            match node.link {
                Link::Open if !node.listed => node.outstanding == 0,
                // What is ejected comes back by a new connection, once others carry the load.
                Link::Open if node.is_ejected(now) => enough > 0,
                Link::Open if node.draining => node.outstanding == 0 && enough > 0,
                Link::Open => surplus(at) && node.outstanding == 0,
                Link::Absent | Link::Connecting | Link::Closing => false,
            }
        });
        let id = found.map(|(id, _)| (*id).clone())?;
        self.peers.get_mut(&Peer::Node(id.clone()))?.link = Link::Closing;
        Some(Action::Disconnect(id))
    }

    /// When [`Balance::poll_action`] may have something to say without any event before.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let listed = self.peers.values().filter(|node| node.listed);
        listed.filter_map(|node| node.ejected_until).filter(|until| *until > now).min()
    }

    /// The nodes and whether they are connected, ejected or draining, for people.
    pub fn describe(&self, now: Instant) -> Vec<(Peer, &'static str)> {
        self.peers.iter().map(|(peer, node)| (peer.clone(), node.describe(now))).collect()
    }
}

/// Two different numbers below `len`; the same twice where there is only one.
fn two(len: usize, entropy: u64) -> Option<(usize, usize)> {
    let bounded = |random: u64, below: usize| {
        usize::try_from((u128::from(random) * below as u128) >> 64).unwrap_or(0)
    };
    match len {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = bounded(entropy, len);
            let second = bounded(mix(entropy), len - 1);
            Some((first, if second >= first { second + 1 } else { second }))
        }
    }
}

/// A peer's place in this device's order.
fn rank(seed: u64, peer: &Peer) -> u64 {
    let name = match peer {
        Peer::Control => "",
        Peer::Node(id) => id.as_str(),
    };
    name.bytes().fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)))
}

/// Scatters a number. Source: Steele et al., "Fast splittable pseudorandom number generators",
/// OOPSLA 2014 (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
