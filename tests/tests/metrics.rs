//! `/metrics`: what Prometheus would read, read by a parser of the format.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::http::{HttpClient, HttpResponse};
use outrigger_tests::prometheus::{Scrape, judge};
use outrigger_tests::world::{Agent, AgentOptions, World};
use serde_json::json;

fn client(agent: &Agent) -> HttpClient {
    let address = std::fs::read_to_string(agent.state_dir().join("metrics-listening")).unwrap();
    HttpClient::connect(address.trim().strip_prefix("http://").unwrap().parse().unwrap()).unwrap()
}

fn scrape(agent: &Agent) -> (HttpResponse, Scrape) {
    let response = client(agent).get("/metrics").unwrap();
    assert_eq!(response.status, 200);
    let text = std::str::from_utf8(&response.body).unwrap();
    let scrape = Scrape::parse(text).unwrap();
    (response, scrape)
}

#[test]
fn counts_and_times_what_was_answered() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let (_, before) = scrape(&agent);
    let images = Images::test().unwrap();
    let mut api = agent.client().unwrap();
    for index in 0..50 {
        let response =
            ask(&mut api, images.pixels(index), &json!({ "timeout": 5_000_000 })).unwrap();
        assert_eq!(response.status, 200);
    }
    let (response, after) = scrape(&agent);
    judge(&response.body).unwrap();
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let answers = |scrape: &Scrape| {
        let of = |placement| scrape.value("outrigger_answers_total", &[("placement", placement)]);
        ["edge", "cloud", "edge-degraded"].map(|placement| of(placement).unwrap())
    };
    let [edge, cloud, degraded] = answers(&after);
    assert_eq!(edge + cloud + degraded - answers(&before).iter().sum::<f64>(), 50.0);
    for (placement, count) in [("edge", edge), ("cloud", cloud), ("edge-degraded", degraded)] {
        let labels = [("model", "fashion"), ("placement", placement)];
        assert_eq!(after.value("outrigger_request_seconds_count", &labels), Some(count));
    }
    let fashion = [("model", "fashion")];
    assert_eq!(after.value("outrigger_infer_seconds_count", &fashion), Some(50.0));
    assert_eq!(after.value("outrigger_network_seconds_count", &fashion), Some(cloud));
    assert!(after.value("outrigger_infer_seconds_sum", &fashion).unwrap() > 0.0);
    assert_eq!(after.value("outrigger_model_active_version", &fashion), Some(1.0));
    assert_eq!(after.value("outrigger_connected", &[]), Some(1.0));
    assert_eq!(after.value("outrigger_breaker_open", &[]), Some(0.0));
    let left = after.value("outrigger_certificate_expiry_seconds", &[]).unwrap();
    assert!((3600.0..=25.0 * 3600.0).contains(&left), "{left}");
    assert!(after.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
    assert!(after.value("process_open_fds", &[]).unwrap() > 3.0);

    world.cloud.stop().unwrap();
    agent.wait_until("the loss noticed", |status| status["connected"] == false).unwrap();
    assert_eq!(scrape(&agent).1.value("outrigger_connected", &[]), Some(0.0));
}

#[test]
fn web_pages_do_not_read_it() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    let origin = [("Origin", "http://evil.example")];
    let response = client(&agent).send("GET", "/metrics", &origin, &[]).unwrap();
    assert_eq!(response.status, 403);
    assert_eq!(client(&agent).get("/v2").unwrap().status, 404);
}
