//! How models come to a device: in few bytes, over links that break, when and as much as its owner allows.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::downloads::{Amount, assign, behind, push, run};
use outrigger_tests::proxy::{HttpProxy, Trouble};
use outrigger_tests::world::{Agent, AgentOptions, World, model_status};
use serde_json::Value;

/// The width of a model of 1 MB.
const WIDTH: i64 = 500;

fn downloads<'s>(status: &'s Value, counter: &str) -> &'s Value {
    &status["counters"]["downloads"][counter]
}

/// Waits until the newest version waits, for a reason that holds these words.
fn waits_because(agent: &Agent, words: &str) -> Value {
    let status = agent.wait_until(words, |status| {
        let model = model_status(status, "wide");
        model["phase"] == "waiting" && model["reason"].as_str().is_some_and(|r| r.contains(words))
    });
    status.unwrap()
}

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.cloud.data_dir().join("cloud.db")).unwrap()
}

#[test]
fn the_short_form_of_prove_downloads() {
    let report = run(Amount::SHORT).unwrap();
    println!("{report}");
    report.check().unwrap();
}

#[test]
fn a_new_version_comes_as_a_delta_and_a_first_one_packed() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let status = agent.status().unwrap();
    assert!(downloads(&status, "packed").as_u64() >= Some(1), "{status}");
    let before = downloads(&status, "fetched_bytes").as_u64().unwrap();

    let folder = outrigger_tests::world::copy_of_fashion(world.folder()).unwrap();
    let onnx = folder.join("edge.onnx");
    let mut bytes = std::fs::read(&onnx).unwrap();
    bytes.extend([0x32, 4]); // a comment of the model: field 6, four bytes
    bytes.extend(b"next");
    std::fs::write(&onnx, &bytes).unwrap();
    world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
    world.operator.run(&["model", "assign", "fashion@2", "--all"]).unwrap();
    agent.wait_active("fashion", 2).unwrap();
    let status = agent.status().unwrap();
    assert!(downloads(&status, "from_base").as_u64() >= Some(1), "{status}");
    assert_eq!(downloads(&status, "deltas_failed"), 0, "{status}");
    let bytes = downloads(&status, "fetched_bytes").as_u64().unwrap() - before;
    assert!(bytes < 20_000, "{bytes} bytes for a comment");
    let metrics = std::fs::read_to_string(agent.state_dir().join("metrics-listening")).unwrap();
    let address = metrics.trim().strip_prefix("http://").unwrap().parse().unwrap();
    let mut client = outrigger_tests::http::HttpClient::connect(address).unwrap();
    let text = String::from_utf8(client.get("/metrics").unwrap().body).unwrap();
    assert!(text.contains("outrigger_download_from_base_total"), "{text}");
}

#[test]
fn what_is_absent_or_of_another_length_is_said_and_tried_again_later() {
    let world = World::start().unwrap();
    let config = "[download]\ndeltas = false".to_owned();
    let agent = world.agent("device", &AgentOptions { config }).unwrap();
    push(&world, 1, WIDTH).unwrap();
    assign(&world, 1).unwrap();
    agent.wait_active("wide", 1).unwrap();

    let other = "sha256 = replace(sha256, substr(sha256, 1, 8), '00000000')";
    for (version, lie, words) in [
        (2, other, "no such blob"),
        (3, "size_bytes = size_bytes + 1", "bytes, the signed manifest says"),
    ] {
        push(&world, version, WIDTH).unwrap();
        let own = format!(
            "name = 'model.onnx' AND bundle = (SELECT bundle FROM bundles WHERE version = {version})"
        );
        let database = database(&world);
        let sql = format!(
            "CREATE TABLE truth AS SELECT * FROM bundle_files WHERE {own}; UPDATE bundle_files SET {lie} WHERE {own}"
        );
        database.execute_batch(&sql).unwrap();
        assign(&world, version).unwrap();
        let status = waits_because(&agent, words);
        assert_eq!(model_status(&status, "wide")["active_version"], version - 1);
        let sql = format!(
            "DELETE FROM bundle_files WHERE {own}; INSERT INTO bundle_files SELECT * FROM truth; DROP TABLE truth"
        );
        database.execute_batch(&sql).unwrap();
        agent.wait_active("wide", version).unwrap();
        let failed = agent.status().unwrap()["counters"]["installs"]["failed"].as_u64().unwrap();
        assert!(failed < 30, "{failed} attempts: that was a loop");
    }
}

#[test]
fn a_cloud_that_stands_still_is_given_up_and_asked_again() {
    let world = World::start().unwrap();
    let proxy = HttpProxy::start(None).unwrap();
    let options = behind(&proxy, "[download]\nstall_s = 1\ndeltas = false");
    let agent = world.agent("device", &options).unwrap();
    agent.wait_until("a connection", |status| status["connected"] == true).unwrap();
    proxy.trouble(Trouble::Stall { after_bytes: 300_000 });
    push(&world, 1, WIDTH).unwrap();
    assign(&world, 1).unwrap();
    waits_because(&agent, "nothing came for 1 s");
    proxy.trouble(Trouble::None);
    agent.wait_active("wide", 1).unwrap();
}

#[test]
fn it_waits_for_its_window_and_for_its_bytes() {
    let world = World::start().unwrap();
    push(&world, 1, WIDTH).unwrap();
    assign(&world, 1).unwrap();
    // Open for a minute, half a day from now.
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let minute = (now_s.as_secs() / 60 + 12 * 60) % (24 * 60);
    let at = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let window = format!("[download]\nwindows = [\"{}-{}\"]", at(minute), at(minute + 1));
    let agent = world.agent("device", &AgentOptions { config: window }).unwrap();
    waits_because(&agent, "waiting for window");

    let state_dir = agent.stop().unwrap();
    let budget = "[download]\nbytes_per_day = 300000\ndeltas = false".to_owned();
    let agent = Agent::start(&state_dir, &AgentOptions { config: budget.clone() }).unwrap();
    let status = waits_because(&agent, "waiting for the next day's bytes");
    let fetched = downloads(&status, "fetched_bytes").as_u64().unwrap();
    assert!((250_000..=301_000).contains(&fetched), "{fetched}");

    // A restart gives nothing back; and what is there is gone on with when it may be.
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions { config: budget }).unwrap();
    let status = waits_because(&agent, "waiting for the next day's bytes");
    assert_eq!(downloads(&status, "fetched_bytes"), 0, "{status}");
    let state_dir = agent.stop().unwrap();
    let config = "[download]\ndeltas = false".to_owned();
    let agent = Agent::start(&state_dir, &AgentOptions { config }).unwrap();
    agent.wait_active("wide", 1).unwrap();
    let rest = downloads(&agent.status().unwrap(), "fetched_bytes").as_u64().unwrap();
    assert!(rest < 900_000, "{rest} bytes: what was there was not gone on with");
}
