//! Models that crash, eat memory or never end reach a device with a valid signature: the agent lives,
//! the version before goes on answering, and everybody is told why.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::hostile;
use outrigger_tests::world::{
    Agent, AgentOptions, Edge, Publisher, World, eventually, model_status, program,
};
use protocol::id::ContentHash;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Answers of [`hostile::harmless`].
const NEGATED: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]), ([0.0, -5.0, 9.0], [0.0, 5.0, -9.0])];
/// Answers of [`hostile::minds_its_neighbours`].
const ALONE: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [0.0; 3]), ([0.0, -5.0, 9.0], [0.0; 3])];

fn options(time_limit_s: u32) -> AgentOptions {
    let config = format!(
        "[local]\nhttp = \"127.0.0.1:0\"\n[sandbox]\nmemory_mb = 512\ntime_limit_s = {time_limit_s}\n"
    );
    AgentOptions { config }
}

/// Publishes a version and assigns it to everybody; its bundle.
fn ship(world: &World, model: &str, version: u64, onnx: Vec<u8>) -> ContentHash {
    let probes = if onnx == hostile::minds_its_neighbours() { &ALONE } else { &NEGATED };
    let publisher = Publisher::with_keys_of(&world.operator).unwrap();
    let bundle = publisher.publish(&Edge { model, version, onnx, probes }).unwrap();
    world.operator.run(&["model", "assign", &format!("{model}@{version}"), "--all"]).unwrap();
    bundle
}

/// Waits until a version is refused; why.
fn refused(agent: &Agent, model: &str, version: u64) -> String {
    let status = agent
        .wait_until(&format!("{model}@{version} refused"), |status| {
            let model = model_status(status, model);
            model["target_version"] == version && model["phase"] == "refused"
        })
        .unwrap();
    model_status(&status, model)["reason"].as_str().unwrap().to_owned()
}

/// The version before answers real requests.
fn answers(agent: &Agent) {
    let images = Images::test().unwrap();
    for index in 0..20 {
        let response = ask(&mut agent.client().unwrap(), images.pixels(index), &json!({})).unwrap();
        assert_eq!(response.status, 200);
    }
    let status = agent.status().unwrap();
    assert_eq!(model_status(&status, "fashion")["active_version"], 1, "{status:#}");
}

fn agent_command(arguments: &[&str], state_dir: &Path) -> Output {
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.args(arguments).arg("--state-dir").arg(state_dir).output().unwrap()
}

fn quarantine(state_dir: &Path) -> Vec<Value> {
    let output = agent_command(&["quarantine", "list", "--json"], state_dir);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn release(bundle: ContentHash, state_dir: &Path) -> Value {
    let bundle = bundle.to_string();
    let output = agent_command(&["quarantine", "release", &bundle[..16], "--json"], state_dir);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn trials(agent: &Agent) -> Value {
    agent.status().unwrap()["counters"]["trials"].clone()
}

#[test]
fn hostile_models_are_quarantined_and_the_agent_lives() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options(5)).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    let cases = [
        (2, hostile::overflows_the_stack(1200), "crashed (SIG"),
        (3, hostile::takes_all_memory(), "512 MiB of [sandbox] memory_mb"),
        (4, hostile::never_ends(), "not done after 5 s, in its first run"),
        (5, hostile::grows_while_loading(), "while loading"),
    ];
    let mut bundles = Vec::new();
    for (version, onnx, expected) in cases {
        bundles.push(ship(&world, "fashion", version, onnx));
        let why = refused(&agent, "fashion", version);
        println!("{why}");
        assert!(why.starts_with("quarantined: the model ") && why.contains(expected), "{why}");
        answers(&agent);
    }
    assert_eq!(trials(&agent)["quarantined"], 4);
    assert_eq!(quarantine(agent.state_dir()).len(), 4);
    let said = eventually("the reason in the cloud", Duration::from_secs(20), || {
        let devices = world.operator.json(&["device", "list"]).unwrap().to_string();
        devices.contains("quarantined: the model").then_some(())
    });
    said.unwrap();

    // A restart neither tries again what is quarantined nor what has proven itself.
    let state_dir = agent.kill();
    let agent = Agent::start(&state_dir, &options(5)).unwrap();
    let why = refused(&agent, "fashion", 5);
    assert!(why.starts_with("quarantined: "), "{why}");
    answers(&agent);
    assert_eq!((&trials(&agent)["quarantined"], &trials(&agent)["proven"]), (&json!(0), &json!(0)));

    // Letting out is for whoever may open the Unix socket.
    let path = format!("/outrigger/quarantine/{}", bundles[3]);
    let response = agent.client().unwrap().send("DELETE", &path, &[], b"").unwrap();
    assert!([404, 405].contains(&response.status), "{}", response.status);
    assert_eq!(quarantine(&state_dir).len(), 4);

    // Released, it is tried again at once, and does the same again.
    assert_eq!(release(bundles[3], &state_dir)["tried_again"], true);
    agent
        .wait_until("another trial", |status| {
            status["counters"]["trials"]["released"] == 1
                && status["counters"]["trials"]["quarantined"] == 1
        })
        .unwrap();
    refused(&agent, "fashion", 5);
    answers(&agent);

    // Also without a running agent, and only what is there.
    let state_dir = agent.stop().unwrap();
    assert_eq!(release(bundles[0], &state_dir)["tried_again"], false);
    assert_eq!(quarantine(&state_dir).len(), 3);
    assert!(!agent_command(&["quarantine", "release", "00"], &state_dir).status.success());
    let report = agent_command(&["check"], &state_dir);
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains("quarantine release") || report.contains("and release"), "{report}");
}

#[test]
fn what_neighbours_do_to_an_answer_is_found_and_told() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(60)).unwrap();
    ship(&world, "mean", 1, hostile::minds_its_neighbours());
    ship(&world, "good", 1, hostile::harmless());
    agent.wait_active("mean", 1).unwrap();
    agent.wait_active("good", 1).unwrap();
    let status = agent.status().unwrap();
    let batching = |model: &str| model_status(&status, model)["proof"]["batching"].clone();
    assert_eq!(batching("mean")["invariant"], false, "{status:#}");
    assert_eq!(batching("good")["invariant"], true, "{status:#}");
    assert_eq!(model_status(&status, "good")["proof"]["probes"], 2);
    let text = agent_command(&["status"], agent.state_dir()).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("mean: neighbours in a batch change its answers"), "{text}");
}

/// Processes whose parent is this one.
fn children_of(parent: u32) -> Vec<u32> {
    let parent_of = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// The child that tries a model of this agent.
fn child_of(agent: &Agent) -> u32 {
    let child = || children_of(agent.process().id()).first().copied();
    eventually("a child", Duration::from_secs(30), child).unwrap()
}

fn is_gone(child: u32) {
    let gone = || (!Path::new(&format!("/proc/{child}")).exists()).then_some(());
    eventually("the end of the child", Duration::from_secs(10), gone).unwrap();
}

#[test]
fn a_trial_ends_with_its_agent_and_is_nobodys_fault() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(600)).unwrap();
    ship(&world, "endless", 1, hostile::never_ends());

    // Stopped in order: so is the trial, at once.
    let child = child_of(&agent);
    let state_dir = agent.stop().unwrap();
    is_gone(child);
    assert!(quarantine(&state_dir).is_empty());

    // Killed without a word: the child goes with it.
    for _ in 0..3 {
        let agent = Agent::start(&state_dir, &options(600)).unwrap();
        let child = child_of(&agent);
        agent.kill();
        is_gone(child);
    }
    assert!(quarantine(&state_dir).is_empty());

    // That happened three times in a row while this bundle was tried: it is held to be the reason.
    let agent = Agent::start(&state_dir, &options(600)).unwrap();
    let why = refused(&agent, "endless", 1);
    assert!(why.contains("ended 3 times while the model was tried"), "{why}");
    assert!(children_of(agent.process().id()).is_empty(), "no child, and no zombie");
}
