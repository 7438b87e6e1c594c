//! Accepted answers that differ from the cloud's: noticed by checks in the background, answered by a
//! stricter rule, which outlives a restart and is told to the operator.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::http::HttpClient;
use outrigger_tests::telemetry;
use outrigger_tests::world::{Agent, AgentOptions, World, model_status};
use serde_json::{Value, json};

fn verdict(client: &mut HttpClient, images: &Images, index: usize, parameters: &Value) -> Value {
    let response = ask(client, images.pixels(index), parameters).unwrap();
    assert_eq!(response.status, 200, "{:?}", response.json());
    response.split().unwrap().0["parameters"].clone()
}

/// A test image that the edge is sure of, and the cloud sees otherwise.
fn disputed(agent: &Agent, images: &Images) -> usize {
    let mut client = agent.client().unwrap();
    let mut label = |index, placement: &str| {
        let verdict = verdict(&mut client, images, index, &json!({ "placement": placement }));
        (verdict["confidence"].as_f64().unwrap(), verdict["label"].clone())
    };
    let is_disputed = |index: &usize| {
        let (confidence, edge) = label(*index, "edge");
        (0.75..0.95).contains(&confidence) && edge != label(*index, "cloud").1
    };
    (0..images.len()).find(is_disputed).unwrap()
}

#[test]
fn too_many_differences_tighten_the_rule_for_good() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    // One in a thousand may differ; here all do.
    let strict = AgentOptions {
        config: "[offload]\ncheck_disagreement = 0.001\ncheck_false_alarm = 0.5\n".into(),
    };
    let agent = world.agent("device", &strict).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let index = disputed(&agent, &images);
    let mut client = agent.client().unwrap();
    let first = verdict(&mut client, &images, index, &json!({}));
    assert_eq!((&first["placement"], &first["reason"]), (&json!("edge"), &json!("confident")));

    let placed = |client: &mut HttpClient| {
        verdict(client, &images, index, &json!({}))["placement"].as_str().unwrap().to_owned()
    };
    let deferred = (0..3_000).any(|_| placed(&mut client) == "cloud");
    let status = agent.status().unwrap();
    assert!(deferred, "{:#}", model_status(&status, "fashion"));
    let checks = model_status(&status, "fashion")["checks"].clone();
    assert_eq!(checks["alarms"], 1, "{checks}");
    assert!(checks["raised"].as_f64() > first["confidence"].as_f64(), "{checks}");
    let counted = &status["counters"]["checks"];
    let calls = status["counters"]["answers"]["edge"].as_u64().unwrap();
    assert!(counted["disagreed"].as_u64().unwrap() <= calls / 100 + 1, "{counted} of {calls}");

    // What the checks took is on no application's account.
    let usage = world.operator.run(&["usage", "--by", "key"]).unwrap();
    assert!(usage.contains("background device d-"), "{usage}");
    let by_model = world.operator.json(&["usage", "--by", "model"]).unwrap();
    let of = |name: &str| {
        let line = by_model.as_array().unwrap().iter().find(|line| line["of"] == name);
        line.unwrap_or_else(|| panic!("{by_model}"))["requests"].as_u64().unwrap()
    };
    assert!(of("fashion (background)") >= 1 && of("fashion") >= 1, "{by_model}");
    let listed = || world.operator.run(&["device", "list"]).unwrap();
    agent.wait_until("the operator knows", |_| listed().contains("drift: 1 alarm")).unwrap();

    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &strict).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    assert_eq!(placed(&mut agent.client().unwrap()), "cloud", "the alarm is not forgotten");
}

/// What a device keeps of its inputs once it has noticed: those that differ, and those that come under the alarm.
#[test]
fn what_is_seen_under_an_alarm_is_worth_learning_from() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    let strict = AgentOptions {
        config: "[offload]\ncheck_disagreement = 0.001\ncheck_false_alarm = 0.5\n\
                 [telemetry]\ncommit_s = 1\nsegment_s = 1\n\
                 [telemetry.samples]\nmodels = [\"fashion\"]\ndisagreeing = 1.0\nhard = 1.0\nrandom = 0.0\n\
                 per_hour = 100000\n"
            .into(),
    };
    let agent = world.agent("device", &strict).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    agent
        .wait_until("the analytics key", |status| {
            status["counters"]["telemetry"]["keys_believed"].as_u64() > Some(0)
        })
        .unwrap();
    let images = Images::test().unwrap();
    let index = disputed(&agent, &images);
    let mut client = agent.client().unwrap();
    let alarmed = (0..3_000).any(|_| {
        verdict(&mut client, &images, index, &json!({}))["placement"].as_str() == Some("cloud")
    });
    assert!(alarmed);
    verdict(&mut client, &images, index, &json!({}));

    let sampled = |record: &Value| record["attributes"]["outrigger.sampled"].clone();
    // The cloud's answer is the label; some are the device's own, from before its rule was strict enough.
    let is_labelled = |record: &Value| {
        sampled(record) == "drifting" && record["attributes"]["outrigger.cloud_label"].is_string()
    };
    let all = telemetry::wait_for(&world, "samples of both kinds", |all| {
        let samples = telemetry::of_kind(all, "sample");
        samples.iter().any(|s| sampled(s) == "disagreeing")
            && samples.iter().any(|s| is_labelled(s))
    });
    let all = all.unwrap();
    let samples = telemetry::of_kind(&all, "sample");
    let drifting = samples.iter().find(|sample| is_labelled(sample)).unwrap();
    let inputs = drifting["attributes"]["inputs"][0]["data_hex"].as_str().unwrap();
    assert_eq!(inputs, hex::encode(images.pixels(index)));
    assert!(samples.iter().all(|sample| sampled(sample) != "random"), "none was asked for");
}

#[test]
fn a_days_budget_is_paced_and_outlives_a_crash() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let poor = AgentOptions { config: "[offload]\ncalls_per_day = 120\n".into() };
    let agent = world.agent("device", &poor).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let asked = |agent: &Agent, priority: u8| -> (usize, usize) {
        let mut client = agent.client().unwrap();
        let parameters = json!({ "placement": "cloud", "priority": priority });
        let verdicts: Vec<Value> =
            (0..30).map(|index| verdict(&mut client, &images, index, &parameters)).collect();
        let count = |name: &str, word: &str| verdicts.iter().filter(|v| v[name] == word).count();
        (count("placement", "cloud"), count("reason", "budget"))
    };
    // A twelfth of the day's calls may go at once; the last of them are for those who say so.
    let (usual, held_back) = asked(&agent, 0);
    assert!((9..=10).contains(&usual), "{usual}");
    let (urgent, beyond) = asked(&agent, 2);
    assert!((10..=11).contains(&(usual + urgent)), "{usual} and {urgent}");
    assert_eq!((usual + held_back, urgent + beyond), (30, 30));
    let agent = Agent::start(&agent.kill(), &poor).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    assert_eq!(asked(&agent, 2), (0, 30));
}
