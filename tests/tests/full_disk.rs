//! A device whose disk is full goes on answering, says why it installs nothing, and installs once
//! there is space.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::ask_http;
use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::small_disk::SmallDisk;
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{Agent, AgentOptions, World, model_status};
use protocol::tensor::Tensor;
use serde_json::json;

#[test]
fn a_full_disk_is_said_and_survived() {
    let world = World::start().unwrap();
    let state_dir = world.folder().join("device");
    let Some(disk) = SmallDisk::mount(&state_dir) else { return };
    world.ship_fashion().unwrap();
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    let filler = disk.fill().unwrap();
    SmallModel::Plain.ship(&world).unwrap();
    let failing = agent.wait_until("a failed installation", |status| {
        !model_status(status, "plain")["reason"].as_str().unwrap_or("").is_empty()
    });
    let failing = failing.unwrap();
    let plain = model_status(&failing, "plain");
    let reason = plain["reason"].as_str().unwrap();
    assert!(reason.contains("No space left") && reason.contains("space"), "{plain}");
    assert!(reason.contains("is there space left in the state folder?"), "{plain}");
    assert_eq!(plain["phase"], "waiting", "{plain}");
    agent
        .wait_until("another attempt", |s| s["counters"]["installs"]["failed"].as_u64() > Some(1))
        .unwrap();
    assert_eq!(agent.status().unwrap()["counters"]["installs"]["refused"], 0);

    // What was active is active, also for an agent that starts on the full disk.
    let images = Images::test().unwrap();
    let answers = |agent: &Agent| {
        ask(&mut agent.client().unwrap(), images.pixels(0), &json!({"placement": "edge"}))
            .unwrap()
            .status
    };
    assert_eq!(answers(&agent), 200);

    std::fs::remove_file(filler).unwrap();
    agent.wait_active("plain", 1).unwrap();
    let input = Tensor::from_f32("x", vec![1, 2], &[1.0, 2.0]).unwrap();
    assert_eq!(ask_http(&agent, "plain", &[input], &json!({})).unwrap().status, 200);
    assert_eq!(answers(&agent), 200);

    // Nothing that was acknowledged is lost.
    let state_dir = agent.kill();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    agent.wait_active("plain", 1).unwrap();
    drop(agent);
    drop(disk);
}
