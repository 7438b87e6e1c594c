//! Bad input gets a typed error with a hint, and nothing else happens.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::raw_link::RawLink;
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::problem::ProblemCode;
use serde_json::json;
use std::time::{Duration, Instant};

fn fleet(options: &AgentOptions) -> (World, Agent) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", options).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    (world, agent)
}

fn input(name: &str, datatype: &str, shape: &[i64], values: usize) -> String {
    let data = vec![0; values];
    json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]})
        .to_string()
}

#[test]
fn the_local_api_says_what_is_wrong() {
    let (_world, agent) = fleet(&AgentOptions::default());
    let infer = "/v2/models/fashion/infer";
    let cases: &[(&str, &str, u16, &str)] = &[
        (infer, &input("image", "FP32", &[1, 1, 28, 27], 28 * 27), 400, "takes"),
        (infer, &input("image", "INT64", &[1, 1, 28, 28], 784), 400, "takes"),
        (infer, &input("picture", "FP32", &[1, 1, 28, 28], 784), 400, "image"),
        (infer, &input("image", "FP33", &[1], 1), 400, "datatype"),
        (infer, &input("image", "FP32", &[1, 1, 28, 28], 783), 400, "too few"),
        (infer, "{", 400, "not an inference request"),
        (infer, "", 400, "not an inference request"),
        ("/v2/models/shoes/infer", &input("image", "FP32", &[1], 1), 404, "fashion"),
        ("/v2/models/fashion/versions/9/infer", &input("image", "FP32", &[1], 1), 404, "version 1"),
        ("/v2/models/fashion/versions/x/infer", "{}", 404, "version"),
        ("/v2/models/..%2F..%2Fetc/infer", "{}", 404, "letters"),
        ("/v3", "{}", 404, "/v2"),
    ];
    let mut client = agent.client().unwrap();
    for (path, body, status, expected) in cases {
        let response = client.post(path, &[], body.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, *status, "{path} {text}");
        assert!(text.contains(expected) && text.contains("\"error\""), "{path}: {text}");
    }
    let images = Images::test().unwrap();
    assert_eq!(ask(&mut client, images.pixels(0), &json!({})).unwrap().status, 200, "it lives");
}

#[test]
fn web_pages_and_foreign_hosts_are_refused() {
    let (_world, agent) = fleet(&AgentOptions::default());
    let mut client = agent.client().unwrap();
    for header in [("Host", "evil.example"), ("Origin", "http://localhost:8000")] {
        let response = client.send("GET", "/v2/health/live", &[header], &[]).unwrap();
        assert_eq!(response.status, 403, "{header:?}");
    }
    assert_eq!(client.get("/v2/health/live").unwrap().status, 200);
    assert_eq!(agent.status().unwrap()["counters"]["refusals"]["forbidden"], 2);
}

#[test]
fn the_quic_port_closes_on_garbage_and_lives() {
    let (world, agent) = fleet(&AgentOptions::default());
    let cloud = world.cloud.address();
    let oversized = [4, 255, 255, 255, 255, 0];
    let unknown_kind = [200, 1, 0, 0, 0, 7];
    let undecodable = [4, 2, 0, 0, 0, 255, 255];
    let out_of_place = [5, 0, 0, 0, 0];
    let cases: [(&[u8], ProblemCode); 4] = [
        (&oversized, ProblemCode::TooLarge),
        (&unknown_kind, ProblemCode::Protocol),
        (&undecodable, ProblemCode::Protocol),
        (&out_of_place, ProblemCode::Protocol),
    ];
    for (bytes, code) in cases {
        let peer = RawLink::connect(agent.state_dir(), &cloud).unwrap();
        let _ = peer.exchange(bytes); // nothing, or the end of the connection
        assert_eq!(peer.closed_with().unwrap(), code, "{bytes:?}");
    }
    // Without a certificate there is nothing to talk about.
    let ca = agent.state_dir().join("ca.pem");
    let peer = RawLink::connect_anonymously(&ca, protocol::ALPN_AGENT, &cloud).unwrap();
    assert_eq!(peer.closed_with().unwrap(), ProblemCode::Unauthorised);

    let images = Images::test().unwrap();
    let response =
        ask(&mut agent.client().unwrap(), images.pixels(0), &json!({"placement": "cloud"}));
    let (body, _) = response.unwrap().split().map(|(b, r)| (b, r.to_vec())).unwrap();
    assert_eq!(body["parameters"]["placement"], "cloud", "the server lives: {body}");
}

/// 200 callers at once against a queue of 64: whoever is refused learns it at once, in the
/// standard's shape, and nobody waits past the deadline.
#[test]
fn a_full_queue_refuses_with_a_type() {
    let (_world, agent) = fleet(&AgentOptions::default());
    let images = Images::test().unwrap();
    // A heavy request: 512 images at a time keep the one session busy.
    let many: Vec<u8> = (0..512).flat_map(|i| images.pixels(i).to_vec()).collect();
    let head = json!({
        "parameters": { "placement": "edge", "timeout": 3_000_000 },
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [512, 28, 28],
                    "parameters": {"binary_data_size": many.len()}}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": true}}],
    });
    let head = head.to_string();
    let len = head.len().to_string();
    let body = [head.as_bytes(), &many].concat();
    let barrier = std::sync::Barrier::new(200);
    let call = || {
        let mut client = agent.client().unwrap();
        barrier.wait();
        let started = Instant::now();
        let headers = [("Inference-Header-Content-Length", len.as_str())];
        let response = client.post("/v2/models/fashion/infer", &headers, &body).unwrap();
        (response.status, response.json().unwrap()["code"].clone(), started.elapsed())
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200).map(|_| scope.spawn(call)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let count = |status: u16| ends.iter().filter(|(s, ..)| *s == status).count();
    for (status, code, elapsed) in &ends {
        match status {
            200 => assert!(code.is_null()),
            503 => assert_eq!(code, "overloaded"),
            504 => assert_eq!(code, "deadline_exceeded"),
            other => panic!("HTTP {other} {code}"),
        }
        // 3 s of deadline, and some for 200 clients on a machine that does other things too.
        assert!(*elapsed < Duration::from_secs(8), "{elapsed:?}");
    }
    assert!(count(200) > 0, "some were answered");
    assert!(count(503) > 0, "some were refused: {ends:?}");
    let refusals = agent.status().unwrap()["counters"]["refusals"].clone();
    assert_eq!(refusals["overloaded"], json!(count(503)), "every refusal is counted");
    assert_eq!(
        ask(&mut agent.client().unwrap(), images.pixels(0), &json!({})).unwrap().status,
        200
    );
}
