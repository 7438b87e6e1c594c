//! The cloud's `/metrics`, read by a parser of the format, while a device and a client ask.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::world::{AgentOptions, World};
use serde_json::json;

fn scrape(world: &World) -> Scrape {
    let auth = world.cloud.admin().unwrap();
    let headers = [("Authorization", auth.as_str())];
    let response = world.cloud.client().unwrap().send("GET", "/metrics", &headers, &[]).unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Scrape::parse(std::str::from_utf8(&response.body).unwrap()).unwrap()
}

#[test]
fn every_request_is_counted_once_whoever_asks() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let mut local = agent.client().unwrap();
    for index in 0..20 {
        let parameters = json!({ "placement": "cloud", "timeout": 5_000_000 });
        let response = ask(&mut local, images.pixels(index), &parameters).unwrap();
        assert_eq!(response.status, 200);
    }
    let auth = world.cloud.admin().unwrap();
    let mut client = world.cloud.client().unwrap();
    let headers = [("Authorization", auth.as_str())];
    let bad = client.post("/v2/models/fashion/infer", &headers, b"{").unwrap();
    assert_eq!(bad.status, 400);
    let unknown = client.post("/v2/models/shoes/infer", &headers, b"{}").unwrap();
    assert_eq!(unknown.status, 404);

    let after = scrape(&world);
    let ended = |model: &str, result: &str| {
        let labels = [("model", model), ("result", result)];
        after.value("outrigger_cloud_requests_ended_total", &labels)
    };
    assert_eq!(ended("fashion", "answered"), Some(20.0));
    assert_eq!(ended("", "not_found"), Some(1.0));
    let fashion = [("model", "fashion")];
    for part in ["request", "network", "queue", "compute"] {
        let name = format!("outrigger_cloud_{part}_seconds");
        assert_eq!(after.value(&format!("{name}_count"), &fashion), Some(20.0), "{part}");
        let sum = after.value(&format!("{name}_sum"), &fashion).unwrap();
        assert!((0.0..20.0).contains(&sum), "{part} {sum}");
    }
    for (name, labels, expected) in [
        ("outrigger_cloud_devices_connected", vec![], 1.0),
        ("outrigger_cloud_connections", vec![("transport", "quic")], 1.0),
        ("outrigger_cloud_ready", vec![], 1.0),
        ("outrigger_cloud_unready", vec![("reason", "draining")], 0.0),
        ("outrigger_cloud_requests_in_flight", vec![], 0.0),
        ("outrigger_cloud_enrolments_total", vec![], 1.0),
        ("outrigger_cloud_internal_errors_total", vec![], 0.0),
        ("outrigger_cloud_model_loaded", vec![("model", "fashion"), ("version", "1")], 1.0),
    ] {
        assert_eq!(after.value(name, &labels), Some(expected), "{name}");
    }
    assert!(after.value("outrigger_cloud_connections", &[("transport", "https")]).unwrap() >= 1.0);
    assert!(after.value("process_resident_memory_bytes", &[]).unwrap() > 1e6);
}
