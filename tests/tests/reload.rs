//! SIGHUP: what can change changes without a request lost, what cannot is named, and an invalid
//! file changes nothing.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::world::{Agent, AgentOptions, World, eventually};
use serde_json::json;
use std::time::Duration;

/// Writes a configuration, sends SIGHUP and waits for what the log says of it.
fn reload(agent: &Agent, config: &str, said: &str) -> String {
    let before = agent.process().output().len();
    std::fs::write(agent.state_dir().join("agent.toml"), config).unwrap();
    agent.process().hang_up().unwrap();
    let log = || agent.process().output()[before..].to_owned();
    let lines = || Some(log()).filter(|log| log.contains(said));
    eventually(said, Duration::from_secs(10), lines).unwrap_or_else(|e| panic!("{e}: {}", log()))
}

#[test]
fn what_can_change_changes_at_once() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let mut client = agent.client().unwrap();
    let mut status = || ask(&mut client, images.pixels(0), &json!({})).unwrap().status;
    assert_eq!(status(), 200);

    // A deadline of nothing, for requests that name none, is always exceeded.
    let config =
        "[offload]\ndefault_deadline_ms = 0\n[log]\nlevel = \"debug\"\n[runtime]\nthreads = 2\n";
    let log = reload(&agent, config, "only a restart makes them hold");
    assert!(log.contains("[log] level, [offload] default_deadline_ms"), "{log}");
    assert!(log.contains("[runtime]") && !log.contains("[local]"), "{log}");
    assert_eq!(status(), 504);

    for invalid in [
        "[offload]\ndefault_deadline = 9",
        "[log]\nlevel = \"loud\"",
        "[local]\nhttp = \"0.0.0.0:1\"",
        "[",
    ] {
        reload(&agent, invalid, "the configuration was not reloaded; the old one holds");
        assert_eq!(status(), 504, "{invalid}");
    }

    // An absent file means the defaults; here it is empty.
    reload(&agent, "", "the configuration was reloaded");
    assert_eq!(status(), 200);
    assert_eq!(agent.status().unwrap()["connected"], true, "the link stayed up");
}

#[test]
fn a_download_under_way_goes_faster_when_it_may() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let slow = AgentOptions { config: "[link]\ndownload_bytes_per_s = 500\n".into() };
    let agent = world.agent("device", &slow).unwrap();
    agent
        .wait_until("the download", |s| s["counters"]["link"]["downlink_bytes"].as_u64() > Some(0))
        .unwrap();
    reload(&agent, "", "the configuration was reloaded");
    agent.wait_active("fashion", 1).unwrap();
}
