//! Streams with state at the agent: what is kept, for whom, how long, and what ends it.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::{Kind, binary_body, refusals};
use outrigger_tests::http::HttpResponse;
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::id::ContentHash;
use protocol::tensor::Tensor;
use serde_json::{Value, json};

fn fleet(models: &[SmallModel], config: &str) -> (World, Agent) {
    let world = World::start().unwrap();
    for model in models {
        model.ship(&world).unwrap();
    }
    let agent = world.agent("device", &AgentOptions { config: config.into() }).unwrap();
    for model in models {
        agent.wait_active(model.name(), 1).unwrap();
    }
    (world, agent)
}

fn send(
    agent: &Agent,
    model: &str,
    input: &Tensor,
    parameters: &Value,
    token: &str,
) -> HttpResponse {
    let outputs = json!([{"name": "y", "parameters": {"binary_data": true}}]);
    let (len, body) = binary_body(std::slice::from_ref(input), parameters, &outputs);
    let (len, token) = (len.to_string(), format!("Bearer {token}"));
    let headers = [("Inference-Header-Content-Length", &*len), ("Authorization", &token)];
    agent.client().unwrap().post(&format!("/v2/models/{model}/infer"), &headers, &body).unwrap()
}

/// `y` of a good answer.
fn floats(response: &HttpResponse) -> Vec<f32> {
    let (body, raw) = response.split().unwrap();
    assert_eq!(response.status, 200, "{body}");
    raw.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

fn pair(value: f32) -> Tensor {
    Tensor::from_f32("x", vec![1, 2], &[value, 2.0 * value]).unwrap()
}

fn total(agent: &Agent, value: f32, parameters: &Value) -> HttpResponse {
    send(agent, "total", &pair(value), parameters, "none")
}

fn start(id: impl Into<Value>) -> Value {
    json!({"sequence_id": id.into(), "sequence_start": true})
}

fn go_on(id: impl Into<Value>) -> Value {
    json!({"sequence_id": id.into()})
}

const UNKNOWN: &str = "is unknown or expired (begin it again with sequence_start)";

#[test]
fn a_sequence_has_a_beginning_an_order_and_an_end() {
    let (world, agent) = fleet(&[SmallModel::Total, SmallModel::Plain], "");
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(1)), UNKNOWN).unwrap();
    assert_eq!(floats(&total(&agent, 1.0, &start(1))), [1.0, 2.0]);
    assert_eq!(floats(&total(&agent, 10.0, &start("one"))), [10.0, 20.0]);
    assert_eq!(floats(&total(&agent, 2.0, &go_on(1))), [3.0, 6.0]);
    assert_eq!(floats(&total(&agent, 5.0, &json!({}))), [5.0, 10.0], "a whole is of no sequence");

    // What gives no answer leaves it as it was.
    let cloud = json!({"sequence_id": 1, "placement": "cloud"});
    Kind::Invalid.check_http(&total(&agent, 7.0, &cloud), "on the device").unwrap();
    let wrong = Tensor::from_f32("x", vec![1, 3], &[0.0; 3]).unwrap();
    assert_eq!(send(&agent, "total", &wrong, &go_on(1), "none").status, 400);
    let answer = total(&agent, 3.0, &json!({"sequence_id": 1, "sequence_end": true}));
    assert_eq!(floats(&answer), [6.0, 12.0]);
    let verdict = answer.json().unwrap()["parameters"].clone();
    assert_eq!((&verdict["placement"], &verdict["reason"]), (&json!("edge"), &json!("sequence")));
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(1)), UNKNOWN).unwrap();
    assert_eq!(floats(&total(&agent, 4.0, &go_on("one"))), [14.0, 28.0], "the other goes on");
    assert_eq!(floats(&total(&agent, 4.0, &start("one"))), [4.0, 8.0], "begun anew");

    let stateless = send(&agent, "plain", &pair(1.0), &start(1), "none");
    Kind::Invalid.check_http(&stateless, "keeps no state").unwrap();
    let alone = total(&agent, 1.0, &json!({"sequence_start": true}));
    Kind::Invalid.check_http(&alone, "need a sequence_id").unwrap();
    let counters = agent.status().unwrap()["counters"]["sequences"].clone();
    assert_eq!(counters, json!({"begun": 3, "ended": 1, "expired": 0, "displaced": 0}));

    // Another version takes the model's place: what began with the old one is over, and says so.
    assert_eq!(floats(&total(&agent, 1.0, &start(5))), [1.0, 2.0]);
    SmallModel::Total.ship(&world).unwrap();
    agent.wait_active("total", 2).unwrap();
    let other = "began with another version of the model than 2 (begin it again";
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(5)), other).unwrap();
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(5)), UNKNOWN).unwrap();
    assert_eq!(floats(&total(&agent, 1.0, &start(5))), [1.0, 2.0]);

    let state_dir = agent.kill();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("total", 2).unwrap();
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(5)), UNKNOWN).unwrap();
}

#[test]
fn sequences_are_limited_and_the_least_recently_used_makes_place() {
    let (_world, agent) = fleet(&[SmallModel::Total], "[sequences]\ncount = 3\nidle_s = 2");
    for id in 1..=3 {
        total(&agent, 1.0, &start(id));
    }
    assert_eq!(floats(&total(&agent, 1.0, &go_on(1))), [2.0, 4.0]);
    total(&agent, 1.0, &start(4));
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(2)), UNKNOWN).unwrap();
    assert_eq!(floats(&total(&agent, 1.0, &go_on(1))), [3.0, 6.0]);
    let status = agent.wait_until("forgotten", |status| {
        status["counters"]["sequences"]["expired"] == 3 // 1, 3 and 4
    });
    assert_eq!(status.unwrap()["counters"]["sequences"]["displaced"], 1);
    Kind::Invalid.check_http(&total(&agent, 1.0, &go_on(1)), UNKNOWN).unwrap();
    assert_eq!(refusals(&agent, "invalid").unwrap(), 2);
}

#[test]
fn requests_of_one_sequence_wait_for_each_other() {
    let (_world, agent) = fleet(&[SmallModel::Total], "");
    assert_eq!(floats(&total(&agent, 0.0, &start(1))), [0.0, 0.0]);
    let mut sums: Vec<f32> = std::thread::scope(|scope| {
        let call = || floats(&total(&agent, 1.0, &go_on(1)))[0];
        let calls: Vec<_> = (0..40).map(|_| scope.spawn(call)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    sums.sort_by(f32::total_cmp);
    let expected: Vec<f32> = (1..=40).map(|n| n as f32).collect();
    assert_eq!(sums, expected, "each went on from the one before");
}

#[test]
fn applications_have_sequences_of_their_own() {
    let application = |token: &str| {
        let digest = ContentHash::of(token.as_bytes());
        format!("[[local.applications]]\nname = \"{token}\"\ntoken_sha256 = \"{digest}\"\n")
    };
    let config = application("camera") + &application("radio");
    let world = World::start().unwrap();
    SmallModel::Total.ship(&world).unwrap();
    let agent = world.agent("device", &AgentOptions { config }).unwrap();
    let ask =
        |value, parameters: &Value, token| send(&agent, "total", &pair(value), parameters, token);
    outrigger_tests::world::eventually("active", std::time::Duration::from_secs(30), || {
        (ask(1.0, &start(1), "camera").status == 200).then_some(())
    })
    .unwrap();
    Kind::Invalid.check_http(&ask(1.0, &go_on(1), "radio"), UNKNOWN).unwrap();
    assert_eq!(floats(&ask(5.0, &start(1), "radio")), [5.0, 10.0]);
    assert_eq!(floats(&ask(1.0, &go_on(1), "camera")), [2.0, 4.0]);
}
