//! Another fleet CA: devices that are there, and one that was away, follow it; nobody touches them.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use link::pki::{chain_from_pem, is_issued_by};
use outrigger_tests::fashion::{Images, ask_cloud_alone};
use outrigger_tests::world::{Agent, AgentOptions, Node, World, eventually, program};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `outrigger-cloud ca ARGS` on the world's cloud.
fn ca(world: &World, args: &[&str]) -> Output {
    let mut command = Command::new(program("outrigger-cloud").unwrap());
    command.arg("ca").args(args).arg("--data-dir").arg(world.cloud.data_dir());
    command.output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    chain_from_pem(&std::fs::read(file).unwrap()).unwrap()
}

/// Waits until a device has a certificate of this CA, and trusts it.
fn moved(state_dir: &Path, ca: &CertificateDer<'static>) {
    eventually("the move to the new CA", PATIENCE, || {
        let leaf = certificates(&state_dir.join("device.pem")).remove(0);
        let trusts = certificates(&state_dir.join("ca.pem")).first() == Some(ca);
        (trusts && is_issued_by(&leaf, ca)).then_some(())
    })
    .unwrap();
}

fn placement(agent: &Agent, images: &Images) -> Value {
    ask_cloud_alone(&mut agent.client().unwrap(), images.pixels(0)).unwrap()
}

fn waiting(world: &World) -> usize {
    let shown: Value = serde_json::from_str(&done(&ca(world, &["show", "--json"]))).unwrap();
    shown["not_moved"].as_array().unwrap().len()
}

#[test]
fn devices_follow_the_fleet_ca_and_so_does_one_that_was_away() {
    let images = Images::test().unwrap();
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let there = world.agent("there", &AgentOptions::default()).unwrap();
    let away = world.agent("away", &AgentOptions::default()).unwrap();
    for agent in [&there, &away] {
        agent.wait_active("fashion", 1).unwrap();
    }
    let away = away.stop().unwrap();
    let token = world.token().unwrap();
    let old = certificates(&world.cloud.ca_pem()).remove(0);

    done(&ca(&world, &["rotate"]));
    assert!(!ca(&world, &["rotate"]).status.success(), "one at a time");
    assert_eq!(certificates(&world.cloud.ca_pem())[..], *std::slice::from_ref(&old), "not yet");
    world.cloud.restart().unwrap();
    let new = certificates(&world.cloud.ca_pem()).remove(0);
    assert_ne!(new, old);

    moved(there.state_dir(), &new);
    eventually("the cloud's word on it", PATIENCE, || (waiting(&world) == 1).then_some(()))
        .unwrap();
    assert_eq!(placement(&there, &images), "cloud");
    let status = there.status().unwrap();
    assert_eq!(status["counters"]["link"]["ca_changes"], 1, "{status}");
    assert_eq!(status["clock"]["verified"], true, "the new CA tells the time: {status}");
    let devices = world.operator.run(&["device", "list"]).unwrap();
    assert_eq!(devices.matches("has the CA from before").count(), 1, "{devices}");
    let refused = ca(&world, &["retire"]);
    assert!(!refused.status.success(), "one device needs the old CA");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hint:"));

    // A token from before is good for an enrolment under the new CA.
    let late = world.folder().join("late");
    Agent::enrol(&late, &world.cloud.address(), &token).unwrap();
    assert_eq!(certificates(&late.join("ca.pem"))[..], *std::slice::from_ref(&new));
    let late = Agent::start(&late, &AgentOptions::default()).unwrap();
    late.wait_active("fashion", 1).unwrap();

    let away = Agent::start(&away, &AgentOptions::default()).unwrap();
    moved(away.state_dir(), &new);
    assert_eq!(placement(&away, &images), "cloud");
    eventually("all have moved", PATIENCE, || (waiting(&world) == 0).then_some(())).unwrap();

    // The old CA is believed no longer; who has moved does not notice.
    world.operator.login(&world.cloud).unwrap();
    done(&ca(&world, &["retire"]));
    world.cloud.restart().unwrap();
    for agent in [&there, &away, &late] {
        let alone =
            || (certificates(&agent.state_dir().join("ca.pem")) == [new.clone()]).then_some(());
        eventually("the old CA is forgotten", PATIENCE, alone).unwrap();
        agent.wait_until("the connection", |status| status["connected"] == true).unwrap();
        assert_eq!(placement(agent, &images), "cloud");
    }
    let audit = world.operator.run(&["audit"]).unwrap();
    for action in ["ca.rotate", "ca.retire"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
    // Whoever was away for all of that must enrol again, and hears that it is not the CA it knows.
    let check = Command::new(program("outrigger-agent").unwrap())
        .args(["check", "--state-dir"])
        .arg(there.state_dir())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("took the place"), "{text}");
}

/// An inference node follows too, and devices on both sides of the exchange reach it.
#[test]
fn a_node_follows_and_devices_reach_it_all_the_while() {
    let images = Images::test().unwrap();
    let mut world = World::start_with(&["--role", "control"]).unwrap();
    world.ship_fashion().unwrap();
    let mut node = Node::join(&world, "node").unwrap();
    node.wait_state(&world.operator, "ready").unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let by_node = |agent: &Agent| {
        eventually("an answer by the node", PATIENCE, || {
            (placement(agent, &images) == "cloud").then_some(())
        })
        .unwrap();
    };
    by_node(&agent);

    done(&ca(&world, &["rotate"]));
    world.cloud.restart().unwrap();
    let new = certificates(&world.cloud.ca_pem()).remove(0);
    let file = node.data_dir().join("node/node.pem");
    let leaf = || is_issued_by(&certificates(&file)[0], &new).then_some(());
    eventually("the node's certificate of the new CA", PATIENCE, leaf).unwrap();
    moved(agent.state_dir(), &new);
    by_node(&agent);
    // Connections from before still stand: a start of both sides shows the new certificates.
    node.restart().unwrap();
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    by_node(&agent);
    eventually("all have moved", PATIENCE, || (waiting(&world) == 0).then_some(())).unwrap();
    done(&ca(&world, &["retire"]));
    world.cloud.restart().unwrap();
    agent.wait_until("the connection", |status| status["connected"] == true).unwrap();
    by_node(&agent);
}
