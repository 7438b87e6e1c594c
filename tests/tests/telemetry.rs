//! What a device records comes back whole, once and in order, to its operator and to nobody else.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::small_disk::SmallDisk;
use outrigger_tests::telemetry::{
    EVERYTHING, acknowledged, holds, numbers, of_kind, records, wait_for,
};
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::analytics::Statement;
use protocol::manifest::SigningKey;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A fleet with the demo model, whose operator has an analytics key, and an agent that records everything.
fn fleet() -> (World, Agent) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    knows_key(&agent);
    (world, agent)
}

/// It comes with the desired state, as the model does, but is taken beside it.
fn knows_key(agent: &Agent) {
    agent
        .wait_until("the analytics key", |status| {
            status["counters"]["telemetry"]["keys_believed"].as_u64() > Some(0)
        })
        .unwrap();
}

fn options() -> AgentOptions {
    AgentOptions { config: EVERYTHING.into() }
}

/// Asks for the images in this range, on the device alone.
fn ask_edge(agent: &Agent, images: &Images, range: std::ops::Range<usize>) {
    let mut client = agent.client().unwrap();
    for index in range {
        let parameters = json!({ "placement": "edge" });
        assert_eq!(ask(&mut client, images.pixels(index), &parameters).unwrap().status, 200);
    }
}

fn requests_in(counters: &[&Value]) -> u64 {
    let rows =
        counters.iter().flat_map(|record| record["attributes"]["models"].as_array().unwrap());
    rows.map(|row| row["requests"].as_u64().unwrap()).sum()
}

#[test]
fn records_come_back_once_and_in_order_over_kills_and_nobody_else_reads_them() {
    let (mut world, agent) = fleet();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..40);
    let log = agent.process().output();
    let state_dir = agent.kill();
    let agent = Agent::start(&state_dir, &options()).unwrap();
    ask_edge(&agent, &images, 40..60);
    let mut log = log + &agent.process().output();
    world.cloud.kill();
    ask_edge(&agent, &images, 60..80);
    // In order: what was recorded is on the disk, where it has to wait.
    let marker = images.pixels(75);
    let state_dir = agent.stop().unwrap();
    log += &std::fs::read_to_string(state_dir.join("agent.log")).unwrap();
    let waiting = std::fs::read_dir(state_dir.join("telemetry")).unwrap().count();
    assert!(waiting > 1, "segments wait");
    assert!(!holds(&state_dir, marker).unwrap());
    let promised = acknowledged(&log);
    assert!(!promised.is_empty(), "{log}");
    world.cloud.restart().unwrap();
    let agent = Agent::start(&state_dir, &options()).unwrap();
    let all = wait_for(&world, "what was acknowledged", |all| {
        let here: BTreeSet<u64> = numbers(all).into_iter().collect();
        promised.is_subset(&here) && of_kind(all, "inference").len() >= 40
    });
    let all = all.unwrap();

    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len(), "no record twice");
    let mut events = of_kind(&all, "inference");
    events.sort_by_key(|event| event["number"].as_u64());
    assert!(events.is_sorted_by_key(|event| event["observed_unix_ms"].as_u64()), "in order");
    let event = &events[0]["attributes"];
    assert_eq!(event["outrigger.model.name"], "fashion");
    assert_eq!(event["outrigger.placement"], "edge");
    assert_eq!(event["outrigger.input_bytes"], 784);
    for kind in ["aggregate", "health", "resources", "sample"] {
        assert!(!of_kind(&all, kind).is_empty(), "no {kind}");
    }
    assert!(requests_in(&of_kind(&all, "counters")) >= 40);

    // What was an input is found by whoever has the key, and by nobody who has the disks.
    let kept = all.iter().any(|record| {
        let data = &record["attributes"]["inputs"][0]["data_hex"];
        data.as_str().is_some_and(|hex| hex.contains(&hex::encode(marker)))
    });
    assert!(kept, "the sample of the marker");
    assert!(!holds(world.cloud.data_dir(), marker).unwrap());
    drop(agent);
}

#[test]
fn without_a_key_nothing_but_counters_is_kept_and_a_forged_one_changes_nothing() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..10);
    let counted = |all: &[Value]| requests_in(&of_kind(all, "counters")) == 10;
    let all = wait_for(&world, "counters", counted).unwrap();
    assert_eq!(all.len(), of_kind(&all, "counters").len());

    // Whoever has taken over the cloud names a key of their own: no operator has signed it.
    let forger = SigningKey::from_seed(&[9; 32]);
    let forged = Statement { public_key: "ab".repeat(32), serial: 5 }.sign(&forger);
    let database = rusqlite::Connection::open(world.cloud.data_dir().join("cloud.db")).unwrap();
    let insert = "INSERT INTO analytics_keys VALUES (5, ?1, 0)";
    database.execute(insert, [forged.to_json()]).unwrap();
    database.execute("UPDATE desired_revision SET number = number + 1", []).unwrap();
    world.operator.run(&["model", "assign", "fashion", "--all"]).unwrap(); // devices are told
    agent
        .wait_until("a refusal", |status| {
            status["counters"]["telemetry"]["keys_refused"].as_u64() > Some(0)
        })
        .unwrap();
    ask_edge(&agent, &images, 10..20);
    let counted = |all: &[Value]| requests_in(&of_kind(all, "counters")) == 20;
    let all = wait_for(&world, "counters", counted).unwrap();
    assert_eq!(all.len(), of_kind(&all, "counters").len(), "still nothing else");
    drop(agent);
}

#[test]
fn an_older_key_opens_what_is_older_and_deletion_leaves_nothing() {
    let (world, agent) = fleet();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..5);
    wait_for(&world, "samples", |all| of_kind(all, "sample").len() >= 5).unwrap();
    let before = records(&world.operator, &world.folder().join("pulled")).unwrap().len();
    world.operator.run(&["telemetry", "key", "--rotate"]).unwrap();
    let told = world.operator.json(&["telemetry", "key", "--show"]).unwrap();
    assert_eq!(told["at_hand"].as_array().unwrap().len(), 2);
    let new_key = told["devices_seal_for"]["public_key"].as_str().unwrap().to_owned();
    let key_id = protocol::id::ContentHash::of(&hex::decode(new_key).unwrap()).to_string();
    let listed = || {
        let authorization = world.cloud.admin().unwrap();
        let headers = [("authorization", authorization.as_str())];
        let mut client = world.cloud.client().unwrap();
        let list = client.get_with("/v1/telemetry/segments", &headers).unwrap();
        list.json().unwrap()["segments"].as_array().unwrap().clone()
    };
    outrigger_tests::world::eventually("the new key", std::time::Duration::from_secs(60), || {
        ask_edge(&agent, &images, 5..6);
        listed().iter().any(|segment| segment["key_id"] == key_id.as_str()).then_some(())
    })
    .unwrap();
    // Both keys are at hand, so everything opens.
    let all = wait_for(&world, "records of both keys", |all| all.len() > before).unwrap();
    assert!(all.len() > before);

    let device = agent.status().unwrap()["device"].as_str().unwrap().to_owned();
    let state_dir = agent.stop().unwrap();
    let keys =
        rusqlite::Connection::open(world.cloud.data_dir().join("telemetry/keys.db")).unwrap();
    let secret: Vec<u8> =
        keys.query_row("SELECT encapsulated FROM detached LIMIT 1", [], |row| row.get(0)).unwrap();
    drop(keys);
    assert!(holds(world.cloud.data_dir(), &secret).unwrap());
    world.operator.run(&["telemetry", "delete", "--device", &device]).unwrap();
    assert!(listed().is_empty());
    assert!(!holds(world.cloud.data_dir(), &secret).unwrap(), "the key of a sample is shredded");
    let fresh: PathBuf = world.folder().join("fresh");
    assert_eq!(records(&world.operator, &fresh).unwrap_or_default().len(), 0);
    drop(state_dir);
}

#[test]
fn a_full_disk_costs_what_was_not_acknowledged_and_is_reported_later() {
    let world = World::start().unwrap();
    let state_dir = world.folder().join("device");
    let Some(disk) = SmallDisk::mount(&state_dir) else { return };
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let quiet =
        AgentOptions { config: EVERYTHING.replace("level = \"debug\"", "level = \"error\"") };
    let agent = Agent::start(&state_dir, &quiet).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    knows_key(&agent);
    ask_edge(&agent, &images, 0..5);
    wait_for(&world, "records", |all| !of_kind(all, "inference").is_empty()).unwrap();

    let filler = disk.fill().unwrap();
    ask_edge(&agent, &images, 5..50);
    agent
        .wait_until("drops that are counted", |status| {
            status["counters"]["telemetry"]["dropped_disk"].as_u64() > Some(0)
        })
        .unwrap();
    ask_edge(&agent, &images, 50..60);
    std::fs::remove_file(filler).unwrap();
    let dropped = |all: &[Value]| {
        let rows = of_kind(all, "counters").into_iter();
        let mut rows =
            rows.filter_map(|record| record["attributes"]["dropped"].as_array()).flatten();
        rows.any(|row| row["reason"] == "disk" && row["records"].as_u64() > Some(0))
    };
    let all = wait_for(&world, "a report of what was dropped", dropped).unwrap();
    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len());
    ask_edge(&agent, &images, 60..70);
    drop(agent);
    drop(disk);
}
