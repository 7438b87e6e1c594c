//! What a device installs, and what it refuses: the old version answers all the while.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::world::{
    Agent, AgentOptions, World, copy_of_fashion, eventually, fashion, model_status,
};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

fn slow() -> AgentOptions {
    AgentOptions { config: "[link]\ndownload_bytes_per_s = 30000".into() }
}

fn answers_with_version(agent: &Agent, version: &str) {
    let images = Images::test().unwrap();
    let response =
        ask(&mut agent.client().unwrap(), images.pixels(0), &json!({"placement": "edge"}));
    let response = response.unwrap();
    let (body, _) = response.split().unwrap();
    assert_eq!((response.status, body["model_version"].as_str()), (200, Some(version)), "{body}");
}

/// Where the cloud has a file.
fn blob(world: &World, bytes: &[u8]) -> PathBuf {
    let hash = protocol::id::ContentHash::of(bytes).to_string();
    world.cloud.data_dir().join("blobs").join(&hash[..2]).join(&hash)
}

/// Pushes the pair with an edge model that differs in a comment, so that its file is another; the file.
fn push_changed(world: &World, comment: u8) -> PathBuf {
    let folder = copy_of_fashion(world.folder()).unwrap();
    let mut bytes = std::fs::read(folder.join("edge.onnx")).unwrap();
    bytes.extend([0x32, 1, comment]); // the model's doc_string
    std::fs::write(folder.join("edge.onnx"), &bytes).unwrap();
    world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
    blob(world, &bytes)
}

fn push_again(world: &World) {
    let folder = fashion();
    world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
}

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.cloud.data_dir().join("cloud.db")).unwrap()
}

#[test]
fn a_forged_manifest_is_refused_and_the_old_version_answers() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    push_again(&world);

    // A cloud that was broken into: it alters what was signed.
    world.cloud.stop().unwrap();
    let changed = database(&world)
        .execute(
            "UPDATE bundles SET signed_manifest = CAST(replace(CAST(signed_manifest AS TEXT), 'Classifies', 'Misleads') AS BLOB) WHERE version = 2",
            [],
        )
        .unwrap();
    assert_eq!(changed, 2, "both variants of version 2");
    world.cloud.restart().unwrap();
    world.operator.run(&["model", "assign", "fashion@2", "--all"]).unwrap();

    let refused = agent
        .wait_until("the refusal", |status| model_status(status, "fashion")["phase"] == "refused");
    let refused = refused.unwrap();
    let model = model_status(&refused, "fashion");
    assert!(model["reason"].as_str().unwrap().contains("forged"), "{model}");
    assert_eq!((&model["active_version"], &model["target_version"]), (&json!(1), &json!(2)));
    answers_with_version(&agent, "1");

    // The operator sees why.
    let devices = eventually("the report", Duration::from_secs(10), || {
        let devices = world.operator.run(&["device", "list", "--json"]).ok()?;
        devices.contains("forged").then_some(devices)
    });
    devices.unwrap();
}

#[test]
fn a_truncated_or_altered_blob_is_refused_and_a_repaired_one_is_installed() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    for (version, comment, truncated) in [(2, b'2', true), (3, b'3', false)] {
        let blob = push_changed(&world, comment);
        let good = std::fs::read(&blob).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        bad.truncate(good.len() - usize::from(truncated));
        std::fs::write(&blob, bad).unwrap();
        world.operator.run(&["model", "assign", &format!("fashion@{version}"), "--all"]).unwrap();
        let status = agent.wait_until("a failure with its reason", |status| {
            let model = model_status(status, "fashion");
            model["target_version"] == version && model["reason"].as_str() != Some("")
        });
        let status = status.unwrap();
        let active = &model_status(&status, "fashion")["active_version"];
        assert_eq!(active, &json!(version - 1), "the old version stays: {status}");
        answers_with_version(&agent, &(version - 1).to_string());

        std::fs::write(&blob, &good).unwrap();
        agent.wait_active("fashion", version).unwrap(); // tried again by itself
        answers_with_version(&agent, &version.to_string());
    }
}

#[test]
fn killed_in_the_middle_of_a_download_it_continues() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let device = world.folder().join("device");
    Agent::enrol(&device, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let partial_bytes = || {
        let entries = std::fs::read_dir(device.join("incoming")).ok()?;
        let parts = entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "part"));
        parts.map(|e| e.metadata().map_or(0, |m| m.len())).max()
    };

    let agent = Agent::start(&device, &slow()).unwrap();
    let enough = |bytes: &u64| *bytes > 20_000;
    let before = eventually("a part", Duration::from_secs(20), || partial_bytes().filter(enough));
    let before = before.unwrap();
    agent.kill();
    assert!(partial_bytes().unwrap() >= before, "what arrived is kept");

    let agent = Agent::start(&device, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    answers_with_version(&agent, "1");
    let status = agent.status().unwrap();
    assert_eq!(partial_bytes(), None, "no part is left");
    assert_eq!(status["counters"]["installs"]["refused"], 0, "{status}");
}

#[test]
fn a_second_version_replaces_the_first_and_a_restart_remembers_it() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    push_again(&world);
    world.operator.run(&["model", "assign", "fashion@2", "--all"]).unwrap();
    agent.wait_active("fashion", 2).unwrap();
    answers_with_version(&agent, "2");

    // With no cloud at all, the device still answers with what it has.
    world.cloud.stop().unwrap();
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    answers_with_version(&agent, "2");
}
