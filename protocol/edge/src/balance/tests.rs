//! One device and several nodes in one thread, from one seed.
#![allow(clippy::disallowed_methods)] // the origin of the tests' own time line

use super::*;
use proptest::prelude::*;

/// A node of the simulated cloud.
#[derive(Debug, Clone, Copy)]
struct Served {
    run: Duration,
    alive: bool,
    draining: bool,
    room: usize,
}

impl Default for Served {
    fn default() -> Self {
        Self { run: Duration::from_millis(10), alive: true, draining: false, room: usize::MAX }
    }
}

/// An attempt that is under way.
struct UnderWay {
    ends: Instant,
    began: Instant,
    peer: Peer,
    outcome: Outcome,
    attempts: u32,
}

/// How long it takes to see that a node is dead.
const DEAD_AFTER: Duration = Duration::from_millis(500);

struct Cloud {
    now: Instant,
    entropy: u64,
    nodes: BTreeMap<NodeId, Served>,
    balance: Balance,
    under_way: Vec<UnderWay>,
    answered: BTreeMap<NodeId, u32>,
    lost: u32,
    asked_again: u32,
}

fn id(number: usize) -> NodeId {
    format!("n-{number}").parse().unwrap()
}

impl Cloud {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut cloud = Self {
            now: Instant::now(),
            entropy: seed,
            nodes: (0..nodes).map(|number| (id(number), Served::default())).collect(),
            balance: Balance::new(BalancePolicy::default(), seed),
            under_way: Vec::new(),
            answered: BTreeMap::new(),
            lost: 0,
            asked_again: 0,
        };
        cloud.balance.handle_peers((0..nodes).map(|number| Peer::Node(id(number))));
        cloud.connections();
        cloud
    }

    fn node(&mut self, number: usize) -> &mut Served {
        self.nodes.get_mut(&id(number)).unwrap()
    }

    fn random(&mut self) -> u64 {
        self.entropy = mix(self.entropy);
        self.entropy
    }

    fn connections(&mut self) {
        while let Some(action) = self.balance.poll_action(self.now) {
            let entropy = self.random();
            match action {
                Action::Connect(node) if self.nodes[&node].alive && !self.nodes[&node].draining => {
                    self.balance.handle_connected(&Peer::Node(node));
                }
                Action::Connect(node) | Action::Disconnect(node) => {
                    self.balance.handle_disconnected(&Peer::Node(node), entropy, self.now);
                }
            }
        }
    }

    /// Everything that ends before `until` ends.
    fn pass(&mut self, until: Instant) {
        loop {
            self.connections();
            let next = (0..self.under_way.len()).min_by_key(|at| self.under_way[*at].ends);
            let ends = next.map(|at| self.under_way[at].ends).filter(|ends| *ends <= until);
            let wakes = self.balance.poll_timeout(self.now).filter(|at| *at <= until);
            match (ends, wakes) {
                (Some(ends), wakes) if wakes.is_none_or(|wakes| ends <= wakes) => {
                    self.now = ends;
                    let ended = self.under_way.swap_remove(next.unwrap());
                    self.end(ended);
                }
                (_, Some(wakes)) => self.now = wakes,
                _ => break,
            }
        }
        self.now = until;
    }

    fn end(&mut self, ended: UnderWay) {
        let UnderWay { began, peer, outcome, attempts, .. } = ended;
        let entropy = self.random();
        self.balance.handle_outcome(&peer, outcome, entropy, self.now);
        if outcome == Outcome::Dead {
            self.balance.handle_disconnected(&peer, entropy, self.now);
        }
        match outcome {
            Outcome::Answered { .. } => {
                let Peer::Node(node) = peer else { unreachable!() };
                *self.answered.entry(node).or_default() += 1;
            }
            _ if outcome.may_be_asked_again() && attempts < ATTEMPTS_MAX => {
                self.asked_again += 1;
                self.send(Some(&peer), began, attempts + 1);
            }
            _ => self.lost += 1,
        }
    }

    fn ask(&mut self) {
        self.send(None, self.now, 1);
    }

    fn send(&mut self, tried: Option<&Peer>, began: Instant, attempts: u32) {
        let entropy = self.random();
        let Some(peer) = self.balance.choose(tried, entropy, self.now) else {
            self.lost += 1;
            return;
        };
        let Peer::Node(node) = &peer else { unreachable!() };
        let served = self.nodes[node];
        let there = self.under_way.iter().filter(|u| u.peer == peer).count();
        let wait = served.run * u32::try_from(there).unwrap();
        let took = served.run + wait;
        let (after, outcome) = match served {
            Served { alive: false, .. } => (DEAD_AFTER, Outcome::Dead),
            Served { draining: true, .. } => (Duration::from_millis(1), Outcome::Draining),
            Served { room, .. } if there >= room => {
                (Duration::from_millis(1), Outcome::Full(Duration::from_millis(100)))
            }
            _ => (took, Outcome::Answered { took, wait }),
        };
        self.under_way.push(UnderWay { ends: self.now + after, began, peer, outcome, attempts });
    }

    /// What is under way at a node when it is killed never comes back.
    fn kill(&mut self, number: usize) {
        self.node(number).alive = false;
        let ends = self.now + DEAD_AFTER;
        for attempt in self.under_way.iter_mut().filter(|u| u.peer == Peer::Node(id(number))) {
            (attempt.ends, attempt.outcome) = (ends, Outcome::Dead);
        }
    }

    /// Asks every `every` for so long.
    fn ask_for(&mut self, time: Duration, every: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.ask();
            self.pass(self.now + every);
        }
        self.pass(self.now + Duration::from_secs(3));
    }

    fn answers(&self, number: usize) -> u32 {
        self.answered.get(&id(number)).copied().unwrap_or(0)
    }

    /// The nodes that are connected.
    fn connected(&self) -> Vec<usize> {
        let described = self.balance.describe(self.now);
        let open = |(at, (_, state)): (usize, (Peer, &str))| (state == "connected").then_some(at);
        described.into_iter().enumerate().filter_map(open).collect()
    }
}

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn equals_get_equal_shares() {
    let mut cloud = Cloud::new(2, 7);
    cloud.ask_for(40 * S, 8 * MS);
    let (a, b) = (cloud.answers(0), cloud.answers(1));
    assert_eq!((cloud.lost, a + b), (0, 5000));
    assert!(a.abs_diff(b) < 500, "{a} and {b}");
}

#[test]
fn the_slower_node_gets_fewer() {
    let mut cloud = Cloud::new(2, 7);
    cloud.node(0).run = 30 * MS;
    cloud.ask_for(20 * S, 10 * MS);
    assert!(cloud.answers(0) * 2 < cloud.answers(1), "{:?}", cloud.answered);
    assert!(cloud.answers(0) > 0, "but it is not starved: {:?}", cloud.answered);
}

#[test]
fn a_node_that_says_it_is_busy_gets_fewer_although_it_answers_as_fast() {
    let mut balance = Balance::new(BalancePolicy::default(), 1);
    let now = Instant::now();
    let peers = [0, 1].map(|number| Peer::Node(id(number)));
    balance.handle_peers(peers.clone());
    peers.iter().for_each(|peer| balance.handle_connected(peer));
    let mut asked = [0; 2];
    for entropy in 0..100 {
        let peer = balance.choose(None, mix(entropy), now).unwrap();
        let busy = peer == peers[0];
        asked[usize::from(!busy)] += 1;
        let wait = if busy { 80 * MS } else { Duration::ZERO };
        balance.handle_outcome(&peer, Outcome::Answered { took: 10 * MS, wait }, 0, now);
    }
    assert!(asked[0] <= 2, "{asked:?}");
}

#[test]
fn a_node_without_room_is_left_alone_for_as_long_as_it_asks() {
    let mut cloud = Cloud::new(2, 3);
    cloud.node(0).room = 0;
    cloud.ask_for(10 * S, 10 * MS);
    assert_eq!((cloud.lost, cloud.answers(0)), (0, 0));
    assert!(cloud.asked_again <= 101, "ten a second at most: {}", cloud.asked_again);
}

#[test]
fn an_outlier_is_ejected_and_comes_back() {
    let mut cloud = Cloud::new(3, 5);
    let [slow, ..] = cloud.connected()[..] else { panic!("nobody is connected") };
    cloud.node(slow).run = 400 * MS;
    cloud.ask_for(30 * S, 20 * MS);
    let while_slow = cloud.answers(slow);
    assert!(while_slow < 100, "{:?}", cloud.answered);
    cloud.node(slow).run = 10 * MS;
    cloud.ask_for(90 * S, 20 * MS);
    assert!(cloud.answers(slow) > while_slow + 300, "{:?}", cloud.answered);
    assert_eq!(cloud.lost, 0);
}

#[test]
fn the_last_node_is_asked_although_it_is_ejected() {
    let mut cloud = Cloud::new(1, 5);
    let peer = Peer::Node(id(0));
    for _ in 0..3 {
        let chosen = cloud.balance.choose(None, 1, cloud.now).unwrap();
        cloud.balance.handle_outcome(&chosen, Outcome::Failed, 1, cloud.now);
    }
    assert!(cloud.balance.peers[&peer].is_ejected(cloud.now));
    assert_eq!(cloud.balance.choose(None, 1, cloud.now), Some(peer.clone()));
    assert_eq!(cloud.balance.choose(Some(&peer), 1, cloud.now), None, "not twice the same");
    assert!(!cloud.balance.may_come(&peer) && cloud.balance.may_come(&Peer::Control));
}

#[test]
fn a_fleet_spreads_and_a_node_that_leaves_moves_only_its_own_devices() {
    let connected = |seed, without: Option<usize>| {
        let mut balance = Balance::new(BalancePolicy::default(), mix(seed));
        let listed = (0..5).filter(|number| Some(*number) != without);
        balance.handle_peers(listed.map(|number| Peer::Node(id(number))));
        let mut found = std::collections::BTreeSet::new();
        while let Some(Action::Connect(node)) = balance.poll_action(Instant::now()) {
            found.insert(node);
        }
        found
    };
    let mut devices = BTreeMap::<NodeId, u32>::new();
    for seed in 0..1000 {
        let all = connected(seed, None);
        assert_eq!(all.len(), 2);
        all.iter().for_each(|node| *devices.entry(node.clone()).or_default() += 1);
        if !all.contains(&id(4)) {
            assert_eq!(connected(seed, Some(4)), all);
        }
    }
    assert!(devices.values().all(|count| (300..500).contains(count)), "{devices:?}");
}

#[test]
fn what_is_not_listed_any_more_is_let_go_of() {
    let mut cloud = Cloud::new(3, 9);
    cloud.balance.handle_peers([Peer::Node(id(0)), Peer::Control]);
    cloud.connections();
    cloud.balance.handle_connected(&Peer::Control);
    let known: Vec<_> = cloud.balance.describe(cloud.now);
    assert_eq!(known, [(Peer::Control, "connected"), (Peer::Node(id(0)), "connected")]);
    cloud.balance.handle_disconnected(&Peer::Control, 0, cloud.now);
    assert!(cloud.balance.can_ask());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One of three nodes is killed, and another drained in order, at any moment: nothing is lost.
    #[test]
    fn a_death_and_a_drain_lose_nothing(seed: u64, at_ms in 0u32..500, pause_ms in 12u32..40, first in 0usize..3) {
        let mut cloud = Cloud::new(3, seed);
        let every = pause_ms * MS;
        cloud.ask_for(S, every);
        cloud.ask();
        cloud.pass(cloud.now + at_ms * MS);
        cloud.ask();
        cloud.kill(first);
        cloud.ask_for(5 * S, every);
        cloud.node((first + 1) % 3).draining = true;
        cloud.ask_for(5 * S, every);
        prop_assert_eq!(cloud.lost, 0, "seed {}: {:?}", seed, cloud.answered);
        prop_assert!(cloud.under_way.is_empty());
        let dead = cloud.node(first);
        (dead.alive, dead.run) = (true, 10 * MS);
        let before = cloud.answers(first);
        cloud.ask_for(90 * S, 20 * MS);
        prop_assert!(cloud.answers(first) > before, "it is probed back: {:?}", cloud.answered);
    }

    /// Whatever happens, in whatever order: what was begun and ended is not counted as under way.
    #[test]
    fn what_is_under_way_is_what_was_not_ended(seed: u64, steps in prop::collection::vec((0u8..9, 0usize..3), 0..200)) {
        let mut balance = Balance::new(BalancePolicy::default(), seed);
        let (mut now, mut open) = (Instant::now(), Vec::new());
        balance.handle_peers((0..3).map(|number| Peer::Node(id(number))));
        for (step, number) in steps {
            let peer = Peer::Node(id(number));
            match step {
                0 => balance.handle_connected(&peer),
                1 => balance.handle_disconnected(&peer, seed, now),
                2 => balance.handle_state(&peer, MS, number == 1, now),
                3 => now += 300 * MS,
                4 => drop(balance.poll_action(now)),
                5 | 6 => open.extend(balance.choose(None, mix(seed ^ number as u64), now)),
                _ => if let Some(peer) = open.pop() {
                    let outcome = [Outcome::Failed, Outcome::Dead, Outcome::Cancelled][number];
                    balance.handle_outcome(&peer, outcome, seed, now);
                }
            }
            let outstanding: u32 = balance.peers.values().map(|node| node.outstanding).sum();
            prop_assert_eq!(outstanding as usize, open.len());
        }
    }
}
