//! Several nodes: they join, know what the control node knows, and no request is lost with one.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::ask_over;
use outrigger_tests::faketime::FakeTime;
use outrigger_tests::hostile;
use outrigger_tests::nodes::{Amount, Fleet, connected, run};
use outrigger_tests::world::{Edge, Publisher, eventually, fashion};
use protocol::id::Variant;
use protocol::tensor::Tensor;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// The short form of `cargo xtask prove nodes`.
#[test]
fn no_request_is_lost_with_its_node() {
    let report = run(Amount::SHORT).unwrap();
    println!("{report}");
    report.check().unwrap();
}

/// A node that was off until its certificate had ended is known by its key, and gets a fresh one.
#[test]
fn a_node_that_was_off_for_weeks_comes_back() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let mut fleet = Fleet::start(1).unwrap();
    let file = fleet.nodes[0].data_dir().join("node/node.pem");
    let before = std::fs::read(&file).unwrap();
    assert_eq!(fleet.nodes[0].stop().unwrap(), Some(0));
    let clock = faketime.clock(&fleet.world.folder().join("clock"), "+60d").unwrap();
    fleet.world.cloud.restart_in(&clock.environment()).unwrap();
    fleet.nodes[0].restart_in(&clock.environment()).unwrap();
    let renewed = || (std::fs::read(&file).ok()? != before).then_some(());
    eventually("a fresh certificate", PATIENCE, renewed).unwrap();
}

/// Clients of the standard keep one of two nodes busy: the device asks the other.
#[test]
fn a_busy_node_gets_fewer() {
    const ASKED: usize = 300;
    let fleet = Fleet::start(2).unwrap();
    let agent = fleet.agent().unwrap();
    let (_, key) = key(&fleet);
    let body = std::fs::read(fashion().join("example.json")).unwrap();
    let [busy, idle] = &fleet.nodes[..] else { panic!("two nodes") };
    let flooding = || busy.get("/v2/models/fashion", &key).is_ok_and(|(status, _)| status == 200);
    eventually("the key on the node", PATIENCE, || flooding().then_some(())).unwrap();
    let enough = AtomicBool::new(false);
    let (flooded, before) = std::thread::scope(|scope| {
        let flood = || busy.flood("/v2/models/fashion/infer", &key, &body, &enough).unwrap();
        let callers: Vec<_> = (0..32).map(|_| scope.spawn(flood)).collect();
        let under_load = || busy.answered("fashion", &key).ok().filter(|count| *count > 50);
        eventually("load", PATIENCE, under_load).unwrap();
        let before = idle.answered("fashion", &key).unwrap();
        let mut client = agent.client().unwrap();
        for index in 0..ASKED {
            assert_eq!(fleet.ask(&mut client, index).unwrap()["placement"], "cloud");
        }
        enough.store(true, SeqCst);
        (callers.into_iter().map(|caller| caller.join().unwrap()).sum::<u64>(), before)
    });
    let by_idle = idle.answered("fashion", &key).unwrap() - before;
    let by_busy = busy.answered("fashion", &key).unwrap() - flooded;
    assert_eq!(by_idle + by_busy, ASKED as u64);
    assert!(by_busy * 2 < by_idle, "{by_busy} by the busy node, {by_idle} by the other");
}

/// A model on its way by a roll-out, which nobody is assigned yet: its canary defers to a node as with any other.
#[test]
fn a_canary_is_answered_by_a_node_before_anything_is_assigned() {
    let fleet = Fleet::start(1).unwrap();
    let agent = fleet.agent().unwrap();
    let publisher = Publisher::with_keys_of(&fleet.world.operator).unwrap();
    let probes = [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0])];
    let edge = Edge { model: "negates", version: 1, onnx: hostile::harmless(), probes: &probes };
    for variant in [Variant::Cloud, Variant::Edge] {
        publisher.publish_as(variant, &edge).unwrap();
    }
    let asked = ["rollout", "start", "negates@1", "--all", "--stages", "all:1d"];
    let id = fleet.world.operator.json(&asked).unwrap()["id"].as_str().unwrap().to_owned();
    agent.wait_active("negates", 1).unwrap();
    let mut client = agent.client().unwrap();
    let mut ask = || {
        let input = Tensor::from_f32("x", vec![1, 3], &[7.0, 0.0, 0.0]).unwrap();
        let parameters = json!({ "placement": "cloud", "timeout": 20_000_000 });
        ask_over(&mut client, "negates", &[input], &parameters).unwrap()
    };
    let answered = eventually("an answer of the node", PATIENCE, || {
        let response = ask();
        let answer = response.split().unwrap().0;
        (answer["parameters"]["placement"] == "cloud").then_some(answer)
    });
    let answered = answered.unwrap_or_else(|e| panic!("{e:#}: {:?}", ask().split()));
    assert_eq!(answered["model_version"], "1");
    let (_, key) = key(&fleet);
    let node = || fleet.nodes[0].answered("negates", &key).ok().filter(|count| *count > 0);
    eventually("the node's count", PATIENCE, node).unwrap();
    let status = fleet.world.operator.json(&["rollout", "status", &id]).unwrap();
    assert!(["offering", "soaking"].contains(&status["phase"].as_str().unwrap()), "{status:#}");
}

fn key(fleet: &Fleet) -> (String, String) {
    let operator = &fleet.world.operator;
    let made = operator.json(&["key", "create", "--name", "shop", "--role", "client"]).unwrap();
    let token = made["key"].as_str().unwrap();
    let (id, secret) = token.rsplit_once('.').unwrap().0.split_once('.').unwrap();
    (id.to_owned(), format!("{id}.{secret}"))
}

fn usage_of(fleet: &Fleet, by: &str) -> Value {
    fleet.world.operator.json(&["usage", "--by", by]).unwrap()
}

/// Keys, usage, the deny list and the removal of a node, with the control node there and away.
#[test]
fn a_node_knows_what_the_control_node_knows() {
    let mut fleet = Fleet::start(1).unwrap();
    let agent = fleet.agent().unwrap();
    let mut client = agent.client().unwrap();
    for index in 0..20 {
        assert_eq!(fleet.ask(&mut client, index).unwrap()["placement"], "cloud");
    }
    // A key made at the control node is good on the node, and its revocation holds there too.
    let (id, key) = key(&fleet);
    let asks = |fleet: &Fleet, status: u16| {
        let status_now = || fleet.nodes[0].get("/v2/models/fashion", &key).ok().map(|(s, _)| s);
        eventually(&format!("status {status}"), PATIENCE, || {
            status_now().filter(|now| *now == status).map(drop)
        })
        .unwrap();
    };
    asks(&fleet, 200);
    assert_eq!(fleet.nodes[0].answered("fashion", &key).unwrap(), 20);
    fleet.world.operator.run(&["key", "revoke", &id]).unwrap();
    asks(&fleet, 401);

    // What was metered arrives once, also where the node is killed and started while nobody takes it.
    fleet.world.cloud.kill();
    for index in 0..5 {
        assert_eq!(fleet.ask(&mut client, index).unwrap()["placement"], "cloud");
    }
    assert_eq!(fleet.nodes[0].stop().unwrap(), Some(0));
    fleet.nodes[0].restart().unwrap();
    fleet.world.cloud.restart().unwrap();
    fleet.nodes[0].wait_state(&fleet.world.operator, "ready").unwrap();
    let metered = || {
        let lines = usage_of(&fleet, "model");
        let requests = lines[0]["requests"].as_u64()?;
        assert!(requests <= 25, "counted twice: {lines}");
        (requests == 25).then_some(())
    };
    eventually("25 requests metered", PATIENCE, metered).unwrap();

    // A device that is shut out loses its connection to the node at once, and gets no other.
    let status = agent.wait_until("the node", |s| !connected(s).is_empty()).unwrap();
    let device = status["device"].as_str().unwrap();
    fleet.world.operator.run(&["device", "deny", device]).unwrap();
    agent.wait_until("the node's refusal", |s| connected(s).is_empty()).unwrap();
    assert_ne!(fleet.ask(&mut client, 0).unwrap()["placement"], "cloud");
    fleet.world.operator.run(&["device", "allow", device]).unwrap();
    agent.wait_until("the node again", |s| !connected(s).is_empty()).unwrap();

    // A node that is removed ends, and cannot come back.
    let entry = fleet.nodes[0].entry(&fleet.world.operator).unwrap();
    fleet.world.operator.run(&["node", "remove", entry["id"].as_str().unwrap()]).unwrap();
    let ended = || fleet.nodes[0].process()?.ended().ok().flatten();
    assert!(!eventually("the node's end", PATIENCE, ended).unwrap().success());
    let control = serde_json::json!({ "node": "control", "state": "connected", "carrier": "quic" });
    let only_control = serde_json::json!([control]);
    agent.wait_until("no node", |s| s["nodes"] == only_control).unwrap();
    assert_eq!(fleet.ask(&mut client, 0).unwrap()["placement"], "cloud", "by the control node");
    let audit = fleet.world.operator.run(&["audit"]).unwrap();
    for action in ["node.token", "node.join", "node.remove"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
}
