//! Who may call an agent on its own device: tokens over TCP, permissions at the Unix socket.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::http::HttpResponse;
use outrigger_tests::world::{Agent, AgentOptions, World, program};
use protocol::id::ContentHash;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn applications(entries: &[(&str, &str)]) -> String {
    let entry = |(token, models): &(&str, &str)| {
        let digest = ContentHash::of(token.as_bytes());
        format!(
            "[[local.applications]]\nname = \"{token}\"\ntoken_sha256 = \"{digest}\"\n{models}\n"
        )
    };
    entries.iter().map(entry).collect()
}

fn with_token(agent: &Agent, path: &str, token: &str) -> HttpResponse {
    let value = format!("Bearer {token}");
    let mut client = agent.client().unwrap();
    client.send("GET", path, &[("Authorization", &value)], &[]).unwrap()
}

#[test]
fn tokens_over_tcp_and_permissions_at_the_socket() {
    let world = World::start().unwrap();
    let config = applications(&[("camera", "models = [\"fashion\"]"), ("radio", "models = []")]);
    let agent = world.agent("device", &AgentOptions { config }).unwrap();

    let mut client = agent.client().unwrap();
    let refused = client.get("/v2/health/live").unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert!(refused.json().unwrap()["error"].as_str().unwrap().contains("Authorization"));
    assert_eq!(with_token(&agent, "/v2/health/live", "camera").status, 200);
    assert_eq!(with_token(&agent, "/v2/health/live", "other").status, 401);
    assert_eq!(with_token(&agent, "/v2/models/fashion", "radio").status, 403);
    assert_eq!(with_token(&agent, "/v2/models/fashion", "camera").status, 404, "none is assigned");

    let mode = std::fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut status = Command::new(program("outrigger-agent").unwrap());
    status.args(["status", "--json", "--state-dir"]).arg(agent.state_dir());
    let output = status.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["counters"]["refusals"]["forbidden"], 2, "{report:#}");
}

#[test]
fn a_socket_left_by_a_kill_is_replaced_and_a_stop_removes_it() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let socket = agent.socket();
    let state_dir = agent.kill();
    assert!(socket.exists());
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let answer = ask(&mut agent.client().unwrap(), images.pixels(0), &json!({})).unwrap();
    assert_eq!(answer.status, 200);
    agent.stop().unwrap();
    assert!(!socket.exists());
}
