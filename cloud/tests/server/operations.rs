//! What whoever runs the server sees of it, and how it ends.

use fleet::access::Role;
use models::fake::FakeBackend;
use protocol::id::Variant;
use protocol::problem::ProblemCode;
use serde_json::{Value, json};
use std::io::{Read, Write};

use crate::support::{Cloud, MODEL, bearer, bundle, infer, request, start_as, start_gated};

fn question() -> Vec<u8> {
    let input =
        json!({ "name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0.0, 4.0, 0.0] });
    json!({ "inputs": [input], "parameters": { "timeout": 5_000_000 } }).to_string().into_bytes()
}

/// Asks the model over HTTPS with this key.
fn ask(cloud: &Cloud, auth: &str) -> u16 {
    cloud.call(Some(auth), "POST", "/v2/models/m/infer", &question()).0
}

#[test]
fn draining_says_so_goes_on_and_then_sends_askers_away() {
    let (cloud, gate) = start_gated();
    gate.open();
    let slow = format!("{MODEL}\ndelay_ms 500");
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, &slow)).0, 201);
    let connection = cloud.agent(&cloud.device_with_model());
    let (client, viewer) = (cloud.key(Role::Client), cloud.key(Role::Viewer));
    let ready = || cloud.call(Some(&viewer), "GET", "/readyz", b"");
    assert_eq!(ready(), (200, json!({ "ready": true, "reasons": [] })));

    let shared = cloud.server.cloud();
    shared.draining.send_replace(true);
    assert_eq!(ready(), (503, json!({ "ready": false, "reasons": ["draining"] })));
    assert_eq!(ask(&cloud, &client), 200, "it goes on");
    let before = gate.arrived();
    let running = {
        let connection = connection.clone();
        cloud
            .runtime
            .spawn(async move { infer(&connection, &request(&[1.0, 0.0, 0.0]), 1, 5000).await })
    };
    gate.wait_for(before + 1);
    shared.stopping.send_replace(true);
    let late = cloud.runtime.block_on(infer(&connection, &request(&[0.0; 3]), 1, 5000));
    let late = late.unwrap_err().into_problem();
    assert_eq!(late.code, ProblemCode::GoingAway, "{late}");
    cloud.runtime.block_on(cloud.server.stop());
    let (reply, _) = cloud.runtime.block_on(running).unwrap().unwrap();
    assert_eq!(reply.label, "a", "what was taken is answered");
    let ended = cloud.runtime.block_on(connection.closed());
    assert!(ended.to_string().contains("stopping"), "{ended}");
}

#[test]
fn metrics_are_for_keys_that_may_view() {
    let cloud = start_as(FakeBackend::default(), |settings| {
        settings.metrics.listen = "127.0.0.1:0".to_owned();
    });
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let client = cloud.key(Role::Client);
    assert_eq!(ask(&cloud, &client), 200);
    let status = |auth: Option<&str>| cloud.call(auth, "GET", "/metrics", b"").0;
    assert_eq!(status(None), 401);
    assert_eq!(status(Some(&client)), 403);
    assert_eq!(status(Some(&cloud.key(Role::Viewer))), 200);

    let mut open = std::net::TcpStream::connect(cloud.server.metrics_address().unwrap()).unwrap();
    open.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    for line in [
        "outrigger_cloud_requests_ended_total{model=\"m\",result=\"answered\"} 1",
        "outrigger_cloud_compute_seconds_count{model=\"m\"} 1",
        "outrigger_cloud_ready 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
}

#[test]
fn the_access_log_names_keys_and_holds_no_secret() {
    let cloud = start_as(FakeBackend::default(), |settings| {
        settings.access_log.file = "access.log".to_owned();
    });
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let (id, client) = cloud.key_with(&json!({ "name": "c", "role": "client" }));
    assert_eq!(ask(&cloud, &client), 200);
    let unknown = cloud.call(Some(&client), "POST", "/v2/models/other/infer", &question());
    assert_eq!(unknown.0, 404);
    assert_eq!(ask(&cloud, "Bearer nobody.at.all"), 401);
    let connection = cloud.agent(&cloud.device_with_model());
    let answered = cloud.runtime.block_on(infer(&connection, &request(&[0.0; 3]), 1, 5000));
    answered.unwrap();
    let path = cloud.folder.path().join("access.log");
    let secret = bearer(&cloud.admin).rsplit('.').next().unwrap().to_owned();
    cloud.runtime.block_on(cloud.server.stop());
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap().to_owned();
            let caller = text("caller");
            let kind = caller.split(' ').next().unwrap().to_owned();
            (kind, text("model"), text("status"))
        })
        .collect();
    let line = |kind: &str, model: &str, status: &str| {
        (kind.to_owned(), model.to_owned(), status.to_owned())
    };
    assert_eq!(
        said,
        [
            line("key", "m", "answered"),
            line("key", "-", "not_found"),
            line("device", "m", "answered")
        ]
    );
    assert_eq!(lines[0]["caller"], format!("key {id}"));
    assert_eq!((&lines[0]["bytes_in"], &lines[0]["bytes_out"]), (&json!(12), &json!(12)));
    assert!(lines[0]["took_us"].as_u64() >= lines[0]["infer_us"].as_u64(), "{text}");
    let client_secret = client.split('.').nth(1).unwrap();
    assert!(!text.contains(client_secret) && !text.contains(&secret));
}
