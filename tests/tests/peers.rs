//! Devices of one site carry chunks to each other: over a bad way to the cloud, and whatever some of them do.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use link::peer::Ends;
use outrigger_tests::downloads::{assign, behind, push};
use outrigger_tests::liar::{Liar, Lie};
use outrigger_tests::proxy::{HttpProxy, Trouble};
use outrigger_tests::raw_link::identity;
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::limits::CHUNK_BYTES;
use protocol::problem::ProblemCode;
use serde_json::Value;
use std::net::SocketAddr;

/// The width of a model of 1 MB: four chunks.
const WIDTH: i64 = 500;
const PEERS: &str = "[peers]\nenabled = true\nsite = \"hall\"\nlisten = \"127.0.0.1:0\"\n";

fn count(status: &Value, group: &str, counter: &str) -> u64 {
    status["counters"][group][counter].as_u64().unwrap()
}

fn peers_of(status: &Value) -> Vec<&Value> {
    status["peers"].as_array().into_iter().flatten().collect()
}

fn wait_for_peers(agent: &Agent, peers: usize) -> Value {
    agent.wait_until("its peers", |status| peers_of(status).len() == peers).unwrap()
}

fn device_of(agent: &Agent) -> String {
    agent.status().unwrap()["device"].as_str().unwrap().to_owned()
}

/// Where a device is reached by its peers, as another of them knows it.
fn address_of(device: &str, status: &Value) -> SocketAddr {
    let peer = peers_of(status).into_iter().find(|peer| peer["device"] == device).unwrap();
    peer["address"].as_str().unwrap().parse().unwrap()
}

/// How a device with this identity is received at a peer's address.
fn knock(state_dir: &std::path::Path, address: SocketAddr) -> ProblemCode {
    let (ca, own) = identity(state_dir).unwrap();
    let ends = Ends::new(&[ca], own).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (line, _) = ends.connect(address).await.unwrap();
        match line.closed().await {
            link::connection::Ended::ByPeer { code, .. } => code,
            other => panic!("{other}"),
        }
    })
}

#[test]
fn two_behind_a_cut_link_have_a_version_from_the_third() {
    let world = World::start().unwrap();
    let size = push(&world, 1, WIDTH).unwrap();
    let proxy = HttpProxy::start(None).unwrap();
    let third = world.agent("third", &AgentOptions { config: PEERS.into() }).unwrap();
    let others: Vec<Agent> =
        ["one", "two"].map(|name| world.agent(name, &behind(&proxy, PEERS)).unwrap()).into();
    others.iter().chain([&third]).for_each(|agent| drop(wait_for_peers(agent, 2)));
    // From now on no chunk comes through whole.
    proxy.trouble(Trouble::Cut { after_bytes: CHUNK_BYTES / 2, times: u64::MAX });
    let own = device_of(&third);
    world.operator.run(&["model", "assign", "wide@1", "--device", &own]).unwrap();
    third.wait_active("wide", 1).unwrap();
    let before = proxy.bytes();
    assign(&world, 1).unwrap();
    for other in &others {
        other.wait_active("wide", 1).unwrap();
        let status = other.status().unwrap();
        assert!(count(&status, "peers", "fetched_bytes") >= size, "{status}");
        assert!(count(&status, "peers", "wrong_bytes") == 0, "{status}");
        // Hashes of chunks: a stretch of a cut download would be counted here too.
        assert!(count(&status, "downloads", "fetched_bytes") < 1_000, "{status}");
    }
    let over_link = proxy.bytes() - before;
    assert!(over_link < size / 4, "{over_link} bytes came over the cut link, of {size}");
    // The one that came first may have served the other.
    let served = |agent: &Agent| count(&agent.status().unwrap(), "peers", "served_bytes");
    let served: u64 = others.iter().chain([&third]).map(served).sum();
    assert!(served >= 2 * size, "{served}");
    who_is_denied_is_let_go(&world, &third, &others);
}

fn who_is_denied_is_let_go(world: &World, third: &Agent, others: &[Agent]) {
    let denied = &others[0];
    let address = address_of(&device_of(third), &denied.status().unwrap());
    let stranger = world.folder().join("stranger");
    Agent::enrol(&stranger, &world.cloud.address(), &world.token().unwrap()).unwrap();
    assert_eq!(knock(&stranger, address), ProblemCode::Unauthorised, "it is of no site");
    world.operator.run(&["device", "deny", &device_of(denied)]).unwrap();
    let status = wait_for_peers(third, 1);
    assert_eq!(peers_of(&status)[0]["device"], device_of(&others[1]));
    assert_eq!(knock(denied.state_dir(), address), ProblemCode::Unauthorised);
    let counted = |status: &Value| count(status, "peers", "strangers") >= 2;
    third.wait_until("two strangers", counted).unwrap();
}

#[test]
fn who_lies_costs_a_chunk_and_is_left_alone() {
    let world = World::start().unwrap();
    let size = push(&world, 1, WIDTH).unwrap();
    let lies = [Lie::WrongBytes, Lie::WrongSize, Lie::Silence, Lie::Refusal];
    let liars = lies.map(|lie| {
        let state_dir = world.folder().join(format!("{lie:?}"));
        let cloud = world.cloud.address();
        Agent::enrol(&state_dir, &cloud, &world.token().unwrap()).unwrap();
        Liar::start(&state_dir, &cloud, "hall", (lie, size)).unwrap()
    });
    let agent = world.agent("honest", &AgentOptions { config: PEERS.into() }).unwrap();
    wait_for_peers(&agent, liars.len());
    assign(&world, 1).unwrap();
    agent.wait_active("wide", 1).unwrap();
    let status = agent.status().unwrap();
    for misdeed in ["wrong_bytes", "wrong_answer", "stalled", "refused"] {
        assert_eq!(count(&status, "peers", misdeed), 1, "{misdeed}: {status}");
        let left = peers_of(&status).into_iter().any(|peer| peer["left_alone"] == misdeed);
        assert!(left, "{misdeed}: {status}");
    }
    let near = count(&status, "peers", "fetched_bytes");
    assert!(near <= CHUNK_BYTES, "{near} bytes of lies were taken");
    assert!(count(&status, "downloads", "fetched_bytes") > 0, "the cloud gave it: {status}");
}
