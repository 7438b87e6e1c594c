//! What operators ask of a device, and how one is removed: real agents answer, refuse, are away, and are gone for good.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{Agent, AgentOptions, World, eventually, program};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// An agent whose own check finds it where it listens.
fn agent(world: &World, name: &str, config: &str) -> Agent {
    let config = format!("[local]\nhttp = \"127.0.0.1:0\"\n[link]\nreconnect_max_s = 1\n{config}");
    world.agent(name, &AgentOptions { config }).unwrap()
}

fn connected(world: &World, agent: &Agent) -> String {
    agent.wait_until("connected", |status| status["connected"] == true).unwrap();
    let devices = world.operator.json(&["device", "list"]).unwrap();
    let device = devices.as_array().unwrap().iter().find(|device| device["online"] == true);
    device.unwrap()["id"].as_str().unwrap().to_owned()
}

fn fails(world: &World, args: &[&str]) -> String {
    format!("{:#}", world.operator.run(args).unwrap_err())
}

/// The names of all checks with their outcomes.
fn outcomes(report: &Value) -> BTreeMap<String, String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks.map(|check| (text(&check["name"]), text(&check["outcome"]))).collect()
}

fn audited(world: &World) -> Vec<(String, String, String)> {
    let entries = world.operator.json(&["audit"]).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry =
        |entry: &Value| (text(&entry["actor"]), text(&entry["action"]), text(&entry["detail"]));
    entries.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn a_device_says_from_afar_what_it_says_at_home() {
    let world = World::start().unwrap();
    let agent = agent(&world, "device", "");
    let id = connected(&world, &agent);
    let asked = world.operator.json(&["device", "check", &id]).unwrap();
    assert_eq!((&asked[0]["device"], &asked[0]["state"]), (&json!(id), &json!("answered")));
    let mut at_home = Command::new(program("outrigger-agent").unwrap());
    at_home.args(["check", "--json", "--state-dir"]).arg(agent.state_dir());
    let at_home: Value = serde_json::from_slice(&at_home.output().unwrap().stdout).unwrap();
    assert_eq!(outcomes(&asked[0]["report"]), outcomes(&at_home));
    assert_eq!((&asked[0]["report"]["ok"], &asked[0]["left_out"]), (&json!(true), &json!(0)));
    let all = world.operator.run(&["device", "check", "--to", "*", "--all"]).unwrap();
    assert!(all.contains("onnxruntime-loads") && all.contains(&id), "{all}");

    let lines = world.operator.run(&["device", "logs", &id]).unwrap();
    for words in ["serving the Open Inference Protocol", "an operator asked this device"] {
        assert!(lines.contains(words), "{lines}");
    }
    let last = world.operator.run(&["device", "logs", &id, "--lines", "2"]).unwrap();
    assert_eq!(last.lines().count(), 2, "{last}");
    let first = lines.lines().next().unwrap();
    assert!(!last.contains(first), "{last}");
    let error = fails(&world, &["device", "logs", &id, "--lines", "1001"]);
    assert!(error.contains("1001"), "{error}");

    let audit = audited(&world);
    let by =
        |action: &str| audit.iter().filter(|entry| entry.1 == action).cloned().collect::<Vec<_>>();
    assert_eq!((by("device.check").len(), by("device.logs").len()), (2, 2), "{audit:?}");
    assert!(by("device.logs")[0].2.ends_with("2 lines, within 60 s"), "{audit:?}");
    let answers = by("device.answer");
    assert_eq!(answers.len(), 4, "{audit:?}");
    assert!(answers.iter().all(|(actor, _, detail)| {
        *actor == format!("device {id}") && detail.ends_with(" bytes")
    }));
    let counted = agent.status().unwrap()["counters"]["questions"].clone();
    assert_eq!(counted, json!({ "answered": 4, "refused": 0 }));
}

#[test]
fn what_the_owner_forbids_is_refused_and_who_is_away_is_waited_for() {
    let world = World::start().unwrap();
    let agent = agent(&world, "device", "[remote]\nchecks = false\nlogs = false\n");
    let id = connected(&world, &agent);
    for (question, setting) in [("check", "checks = false"), ("logs", "logs = false")] {
        let error = fails(&world, &["device", question, &id]);
        assert!(error.contains("owner does not want that") && error.contains(setting), "{error}");
    }
    assert!(audited(&world).iter().any(|entry| entry.2.ends_with("refused, forbidden")));
    assert_eq!(agent.status().unwrap()["counters"]["questions"]["refused"], 2);
    let error = fails(&world, &["device", "check", "d-nobody"]);
    assert!(error.contains("there is no device d-nobody"), "{error}");

    let state_dir = agent.stop().unwrap();
    eventually("it is away", Duration::from_secs(5), || {
        let devices = world.operator.json(&["device", "list"]).unwrap();
        (devices[0]["online"] == false).then_some(())
    })
    .unwrap();
    let error = fails(&world, &["device", "logs", &id, "--wait", "1s"]);
    assert!(error.contains("has not answered in time"), "{error}");
    let options = AgentOptions { config: "[link]\nreconnect_max_s = 1\n".to_owned() };
    let lines = std::thread::scope(|scope| {
        let lines = scope.spawn(|| world.operator.run(&["device", "logs", &id, "--wait", "2m"]));
        eventually("it is asked", Duration::from_secs(30), || {
            (audited(&world)[0].1 == "device.logs").then_some(())
        })
        .unwrap();
        let agent = Agent::start(&state_dir, &options).unwrap();
        let lines = lines.join().unwrap().unwrap();
        drop(agent);
        lines
    });
    assert!(lines.contains("connected to the cloud"), "{lines}");
}

#[test]
fn a_removed_device_is_gone_for_good_and_may_enrol_anew() {
    let world = World::start().unwrap();
    let token = world.token().unwrap();
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &token).unwrap();
    let options = AgentOptions { config: "[link]\nreconnect_max_s = 1\n".to_owned() };
    let agent = Agent::start(&state_dir, &options).unwrap();
    let id = connected(&world, &agent);
    world.operator.run(&["device", "label", &id, "site=lyon"]).unwrap();
    let error = fails(&world, &["device", "remove", &id]);
    assert!(error.contains("nothing was removed"), "{error}");
    let removed = world.operator.json(&["device", "remove", &id, "--yes"]).unwrap();
    assert_eq!(removed, json!({ "id": id, "removed": true }));
    assert_eq!(world.operator.json(&["device", "list"]).unwrap(), json!([]));
    let error = fails(&world, &["device", "remove", &id, "--yes"]);
    assert!(error.contains("there is no device"), "{error}");
    agent.wait_until("let go", |status| status["connected"] == false).unwrap();
    assert!(audited(&world).iter().any(|entry| entry.1 == "device.remove"));

    // Its key is no way back, and neither is the token that it came with.
    let state_dir = Agent::start(&agent.stop().unwrap(), &options).unwrap().stop().unwrap();
    assert_eq!(world.operator.json(&["device", "list"]).unwrap(), json!([]));
    let again = |token: &std::path::Path| {
        let mut enrol = Command::new(program("outrigger-agent").unwrap());
        enrol.args(["enrol", "--replace", "--cloud", &world.cloud.address(), "--token-file"]);
        enrol.arg(token).arg("--state-dir").arg(&state_dir).output().unwrap()
    };
    let refused = again(&token);
    assert!(!refused.status.success());
    let taken = again(&world.token().unwrap());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let agent = Agent::start(&state_dir, &options).unwrap();
    let anew = connected(&world, &agent);
    assert_ne!(anew, id);
    let shown = world.operator.json(&["device", "show", &anew]).unwrap();
    assert_eq!(shown["labels"], json!({}));
}
