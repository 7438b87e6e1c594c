//! The cloud goes, answers go on inside their deadline, and deferral returns by itself.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::world::{Agent, AgentOptions, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The first test image that the edge model is not sure about.
fn doubtful(agent: &Agent, images: &Images) -> usize {
    let mut client = agent.client().unwrap();
    let deferred = |index: &usize| verdict(&mut client, images, *index)["placement"] == "cloud";
    (0..images.len()).find(deferred).unwrap()
}

fn verdict(client: &mut outrigger_tests::http::HttpClient, images: &Images, index: usize) -> Value {
    let response = ask(client, images.pixels(index), &json!({ "timeout": 300_000 })).unwrap();
    assert_eq!(response.status, 200, "{:?}", response.json());
    response.split().unwrap().0["parameters"].clone()
}

#[test]
fn killed_stopped_and_back() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let hard = doubtful(&agent, &images);
    let mut client = agent.client().unwrap();

    // Killed: no goodbye, so the first deferrals run into their deadline, and no further.
    world.cloud.kill();
    for _ in 0..6 {
        let started = Instant::now();
        let verdict = verdict(&mut client, &images, hard);
        // The deadline is 300 ms; a wait for the connection's end would take 10 s.
        assert!(started.elapsed() < Duration::from_secs(2), "the deadline bounds the wait");
        assert_eq!(verdict["placement"], "edge-degraded", "{verdict}");
    }
    // After three of them in a row the cloud is left alone for a while; and by now it is known to be dead.
    let reason = verdict(&mut client, &images, hard)["reason"].clone();
    assert!(reason == "breaker_open" || reason == "cloud_unreachable", "{reason}");

    world.cloud.restart().unwrap();
    agent
        .wait_until("deferral again", |_| {
            verdict(&mut agent.client().unwrap(), &images, hard)["placement"] == "cloud"
        })
        .unwrap();

    // Stopped in order: it says goodbye, and the agent knows at once.
    assert_eq!(world.cloud.stop().unwrap(), Some(0));
    agent.wait_until("the loss noticed", |status| status["connected"] == false).unwrap();
    let verdict = verdict(&mut client, &images, hard);
    assert_eq!(
        (&verdict["placement"], &verdict["reason"]),
        (&json!("edge-degraded"), &json!("cloud_unreachable"))
    );
}
