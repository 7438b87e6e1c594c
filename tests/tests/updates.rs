//! How a new version takes over: it answers beside the old one, then in its place, and what does not do
//! as well ends on the version before, with the reason, also without a cloud.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::{ask_http, binary_body};
use outrigger_tests::downloads;
use outrigger_tests::hostile::{self, versions};
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{
    Agent, AgentOptions, Edge, Publisher, World, eventually, model_status, program,
};
use protocol::id::ContentHash;
use protocol::tensor::Tensor;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const MODEL: &str = "negates";
/// What most versions answer to their probes.
const PROBES: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]), ([0.0, -5.0, 9.0], [0.0, 5.0, -9.0])];

/// Few requests decide, all of the processor may be used, and nothing is over by itself.
const BY_REQUESTS: &str = "shadow_requests = 20\nshadow_quiet_s = 600\nshadow_cpu = 1.0\n\
                           trial_requests = 20\ntrial_s = 3600\n";
/// Nobody asks while it is in its shadow, and the trial goes on for long.
const BY_PROBES: &str = "shadow_s = 0\ntrial_requests = 100000\ntrial_s = 3600\n";

fn options(update: &str) -> AgentOptions {
    AgentOptions { config: format!("[update]\n{update}\n[link]\nreconnect_max_s = 1\n") }
}

/// What a version by another scale answers to them.
fn scaled(scale: f32) -> [([f32; 3], [f32; 3]); 2] {
    PROBES.map(|(x, y)| (x, y.map(|y| y * scale)))
}

fn ship(world: &World, version: u64, onnx: Vec<u8>) -> ContentHash {
    let publisher = Publisher::with_keys_of(&world.operator).unwrap();
    let probes = if onnx == versions::negates(1.25) { scaled(1.25) } else { PROBES };
    let bundle = publisher.publish(&Edge { model: MODEL, version, onnx, probes: &probes }).unwrap();
    world.operator.run(&["model", "assign", &format!("{MODEL}@{version}"), "--all"]).unwrap();
    bundle
}

/// Asks once; the version that answered, and the first number of its answer.
fn ask(agent: &Agent, x: f32) -> (u64, f64) {
    let input = Tensor::from_f32("x", vec![1, 3], &[x, 0.0, 0.0]).unwrap();
    // JSON cannot carry NaN.
    let parameters = json!({ "timeout": 20_000_000, "binary_data_output": true });
    let response = ask_http(agent, MODEL, &[input], &parameters).unwrap();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let (body, raw) = response.split().unwrap();
    let version = body["model_version"].as_str().unwrap().parse().unwrap();
    (version, f64::from(f32::from_le_bytes(raw[..4].try_into().unwrap())))
}

/// Asks until the status meets a condition; all answers on the way.
fn ask_until(
    agent: &Agent,
    x: f32,
    what: &str,
    met: impl Fn(&Value) -> bool,
) -> (Value, Vec<(u64, f64)>) {
    let mut answers = Vec::new();
    let met = eventually(what, Duration::from_secs(60), || {
        answers.push(ask(agent, x));
        let status = agent.status().unwrap();
        met(model_status(&status, MODEL)).then(|| model_status(&status, MODEL).clone())
    });
    (met.unwrap_or_else(|e| panic!("{e:#}: {:#}", agent.status().unwrap())), answers)
}

fn is_refused(version: u64) -> impl Fn(&Value) -> bool {
    move |model| model["target_version"] == version && model["phase"] == "refused"
}

fn updates(agent: &Agent, what: &str) -> u64 {
    agent.status().unwrap()["counters"]["updates"][what].as_u64().unwrap()
}

fn release(bundle: ContentHash, agent: &Agent) {
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.args(["quarantine", "release", &bundle.to_string()]);
    let output = command.arg("--state-dir").arg(agent.state_dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_good_version_takes_over_by_shadow_and_trial_and_a_bad_one_does_not() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_REQUESTS)).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    let (_, answers) = ask_until(&agent, 7.0, "the soak", |model| model["phase"] == "soak");
    assert!(answers.iter().all(|answer| *answer == (1, -7.0)));
    assert_eq!((updates(&agent, "trials_passed"), updates(&agent, "shadow_compared")), (1, 0));

    // Beside the old one, and never instead of it.
    ship(&world, 2, versions::negates(1.25));
    let (_, answers) = ask_until(&agent, 7.0, "the new version", |model| {
        model["active_version"] == 2 && model["phase"] == "trial"
    });
    assert!(answers.iter().all(|answer| [(1, -7.0), (2, -8.75)].contains(answer)), "{answers:?}");
    assert!(answers.iter().filter(|(version, _)| *version == 1).count() >= 20);
    assert_eq!(updates(&agent, "shadow_compared"), 20);
    ask_until(&agent, 7.0, "the soak", |model| model["phase"] == "soak");

    // What is wrong with these shows only when an application asks.
    let cases: [(Vec<u8>, f32, &str); 4] = [
        (hostile::overflows_the_stack(1200), 7.0, "the model crashed"),
        (versions::forgets_large_numbers(10.0), 100.0, "live requests are others than before"),
        (versions::loses_small_numbers(50.0), -100.0, "runs failed: its answer holds NaN"),
        (versions::slows_down(), 30_000.0, "its median run takes"),
    ];
    for (version, (onnx, x, expected)) in (3..).zip(cases) {
        ship(&world, version, onnx);
        let (model, answers) = ask_until(&agent, x, "the refusal", is_refused(version));
        let why = model["reason"].as_str().unwrap();
        println!("{why}");
        assert!(why.starts_with("quarantined: ") && why.contains(expected), "{why}");
        assert_eq!(model["active_version"], 2);
        let right = (2, f64::from(x) * -1.25);
        assert!(answers.iter().all(|answer| *answer == right), "{answers:?}");
    }
    assert_eq!(updates(&agent, "rolled_back"), 0, "none of them ever answered");
    eventually("the reason in the cloud", Duration::from_secs(20), || {
        let devices = world.operator.json(&["device", "list"]).unwrap().to_string();
        devices.contains("its median run takes").then_some(())
    })
    .unwrap();
    let metrics = agent.state_dir().join("metrics-listening");
    let address = std::fs::read_to_string(metrics).unwrap();
    let address = address.trim().strip_prefix("http://").unwrap().parse().unwrap();
    let text =
        outrigger_tests::http::HttpClient::connect(address).unwrap().get("/metrics").unwrap();
    let text = String::from_utf8(text.body).unwrap();
    assert!(text.contains("outrigger_updates_total{event=\"shadow-refused\"} 3"), "{text}");
}

#[test]
fn what_fails_in_its_trial_goes_back_without_a_cloud_and_stays_away() {
    let mut world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_PROBES)).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    let cases: [(Vec<u8>, f32, &str); 2] = [
        (versions::loses_small_numbers(50.0), -100.0, "runs failed: its answer holds NaN"),
        (versions::slows_down(), 30_000.0, "its median run takes"),
    ];
    for (version, (onnx, x, expected)) in (2..).zip(cases) {
        let bundle = ship(&world, version, onnx);
        agent.wait_active(MODEL, version).unwrap();
        world.cloud.stop().unwrap();
        let (model, answers) = ask_until(&agent, x, "the roll-back", is_refused(version));
        let why = model["reason"].as_str().unwrap();
        println!("{why}");
        assert!(why.starts_with("rolled back: ") && why.contains(expected), "{why}");
        assert_eq!(model["active_version"], 1);
        assert!(answers.iter().any(|(answered, _)| *answered == version), "it did answer");
        assert_eq!(ask(&agent, x), (1, f64::from(-x)));

        // The cloud goes on wanting it; only a person lets it try again.
        world.cloud.restart().unwrap();
        let status = agent.wait_until("the cloud", |status| status["connected"] == true).unwrap();
        assert!(is_refused(version)(model_status(&status, MODEL)), "{status:#}");
        release(bundle, &agent);
        agent.wait_active(MODEL, version).unwrap();
        ask_until(&agent, x, "another roll-back", is_refused(version));
    }
    assert_eq!(updates(&agent, "rolled_back"), 4);
}

#[test]
fn a_version_that_takes_the_agent_down_gives_way_at_the_start() {
    let mut world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_PROBES)).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    ship(&world, 2, versions::negates(1.25));
    agent.wait_active(MODEL, 2).unwrap();
    world.cloud.stop().unwrap();

    // An end in order is nobody's fault, however often.
    let mut state_dir = agent.stop().unwrap();
    for _ in 0..4 {
        let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
        assert_eq!(ask(&agent, 1.0), (2, -1.25));
        state_dir = agent.stop().unwrap();
    }
    for _ in 0..3 {
        let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
        assert_eq!(ask(&agent, 1.0), (2, -1.25));
        state_dir = agent.kill();
    }
    for _ in 0..2 {
        let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
        assert_eq!(ask(&agent, 1.0), (1, -1.0));
        let status = agent.status().unwrap();
        let model = model_status(&status, MODEL);
        if updates(&agent, "rolled_back") == 1 {
            assert_eq!((&model["phase"], &model["target_version"]), (&json!("refused"), &json!(2)));
            let why = model["reason"].as_str().unwrap();
            assert!(why.starts_with("rolled back: the agent "), "{why}");
        }
        state_dir = agent.kill();
    }
    world.cloud.restart().unwrap();
    let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
    let refused = |status: &Value| is_refused(2)(model_status(status, MODEL));
    let status = agent.wait_until("the refusal", refused).unwrap();
    let why = model_status(&status, MODEL)["reason"].as_str().unwrap();
    assert!(why.starts_with("quarantined: rolled back: the agent "), "{why}");
    assert_eq!(ask(&agent, 1.0), (1, -1.0));
}

#[test]
fn a_version_is_not_blamed_for_what_another_model_does() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_PROBES)).unwrap();
    ship(&world, 1, hostile::harmless());
    downloads::push(&world, 1, 2_000).unwrap();
    downloads::assign(&world, 1).unwrap();
    agent.wait_active(MODEL, 1).unwrap();
    agent.wait_active("wide", 1).unwrap();
    ship(&world, 2, versions::negates(1.25));
    agent.wait_active(MODEL, 2).unwrap();

    // It ends while the other model computes, more often than a version has starts.
    let mut state_dir = agent.kill();
    for _ in 0..5 {
        let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
        assert_eq!(ask(&agent, 1.0), (2, -1.25));
        let mut line = agent.client().unwrap();
        let asking = std::thread::spawn(move || {
            let rows = 8_192;
            let input = Tensor::from_f32("x", vec![rows, 64], &[0.5; 64 * 8_192]).unwrap();
            let parameters = json!({ "timeout": 60_000_000 });
            let (len, body) = binary_body(&[input], &parameters, &json!([]));
            let len = len.to_string();
            let headers = [("Inference-Header-Content-Length", len.as_str())];
            line.post("/v2/models/wide/infer", &headers, &body).map(|answer| answer.status)
        });
        let running = agent.state_dir().join("running");
        let computes =
            || std::fs::read_to_string(&running).ok().filter(|text| text.contains("\n1"));
        eventually("the other model at work", Duration::from_secs(60), computes).unwrap();
        state_dir = agent.kill();
        assert!(asking.join().unwrap().is_err(), "the run was over before the agent ended");
    }
    let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
    assert_eq!(ask(&agent, 1.0), (2, -1.25));
    assert_eq!(updates(&agent, "rolled_back"), 0);
}

#[test]
fn a_version_that_lost_its_accelerator_gives_way() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_PROBES)).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    ship(&world, 2, versions::negates(1.25));
    agent.wait_active(MODEL, 2).unwrap();
    let state_dir = agent.stop().unwrap();
    // This machine has none: it is as if one had been taken out while the device was off.
    let database = rusqlite::Connection::open(state_dir.join("state.db")).unwrap();
    let changed = database.execute("UPDATE probations SET provider = 'cuda'", []).unwrap();
    assert_eq!(changed, 1);
    drop(database);
    let agent = Agent::start(&state_dir, &options(BY_PROBES)).unwrap();
    assert_eq!(ask(&agent, 1.0), (1, -1.0));
    let refused = |status: &Value| is_refused(2)(model_status(status, MODEL));
    let status = agent.wait_until("the refusal", refused).unwrap();
    let why = model_status(&status, MODEL)["reason"].as_str().unwrap();
    assert!(why.contains("it runs on cpu, where cuda is"), "{why}");
}

#[test]
fn a_first_version_that_takes_the_agent_down_leaves_none_and_the_agent_starts() {
    let world = World::start().unwrap();
    let options = options(&format!("{BY_PROBES}starts = 1\n"));
    let agent = world.agent("device", &options).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    let mut state_dir = agent.kill();
    for _ in 1..10 {
        let agent = Agent::start(&state_dir, &options).unwrap();
        assert_eq!(ask(&agent, 1.0), (1, -1.0), "it has ten times as many starts as others");
        state_dir = agent.kill();
    }
    let agent = Agent::start(&state_dir, &options).unwrap();
    let refused = |status: &Value| is_refused(1)(model_status(status, MODEL));
    let status = agent.wait_until("the refusal", refused).unwrap();
    assert_eq!(model_status(&status, MODEL)["active_version"], Value::Null, "{status:#}");
    ship(&world, 2, versions::negates(1.25));
    agent.wait_active(MODEL, 2).unwrap();
    assert_eq!(ask(&agent, 1.0), (2, -1.25));
}

#[test]
fn a_candidate_goes_on_from_its_slot_without_a_cloud() {
    let mut world = World::start().unwrap();
    let agent = world.agent("device", &options(BY_REQUESTS)).unwrap();
    ship(&world, 1, hostile::harmless());
    agent.wait_active(MODEL, 1).unwrap();
    ship(&world, 2, versions::negates(1.25));
    let in_shadow = |status: &Value| model_status(status, MODEL)["phase"] == "shadow";
    agent.wait_until("the shadow", in_shadow).unwrap();
    world.cloud.stop().unwrap();
    let state_dir = agent.kill();

    let agent = Agent::start(&state_dir, &options(BY_REQUESTS)).unwrap();
    assert_eq!(ask(&agent, 1.0), (1, -1.0));
    ask_until(&agent, 1.0, "the new version", |model| model["active_version"] == 2);
    assert_eq!(ask(&agent, 1.0), (2, -1.25));
}

/// One sequence of four pieces; false where it was broken off by the change of versions.
fn stream(agent: &Agent, id: u32) -> bool {
    for piece in 1..=4u32 {
        let x = Tensor::from_f32("x", vec![1, 2], &[1.0, 10.0]).unwrap();
        let parameters = json!({
            "sequence_id": id, "sequence_start": piece == 1, "sequence_end": piece == 4,
            "timeout": 20_000_000,
        });
        let response = ask_http(agent, "total", &[x], &parameters).unwrap();
        let body = response.json().unwrap();
        if response.status == 400 {
            assert!(body.to_string().contains("another version"), "{body}");
            return false;
        }
        assert_eq!(body["outputs"][0]["data"][1], f64::from(10 * piece), "{body}");
    }
    true
}

#[test]
fn a_stream_with_state_is_followed_by_the_candidate() {
    let update = "shadow_requests = 20\nshadow_quiet_s = 600\nshadow_cpu = 1.0\n";
    let world = World::start().unwrap();
    let agent = world.agent("device", &options(update)).unwrap();
    SmallModel::Total.ship(&world).unwrap();
    agent.wait_active("total", 1).unwrap();
    SmallModel::Total.ship(&world).unwrap();
    let model = |status: &Value| model_status(status, "total").clone();
    agent.wait_until("the shadow", |status| model(status)["phase"] == "shadow").unwrap();
    // Each piece adds to the sum before: a candidate that began anew with each would disagree.
    let mut ids = 1..;
    eventually("the new version", Duration::from_secs(60), || {
        stream(&agent, ids.next().unwrap());
        (model(&agent.status().unwrap())["active_version"] == 2).then_some(())
    })
    .unwrap();
    assert!(stream(&agent, 0x7fff_ffff));
    assert_eq!((updates(&agent, "shadow_compared"), updates(&agent, "shadow_refused")), (20, 0));
}
