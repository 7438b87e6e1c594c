//! `outrigger-agent check` on a healthy device, and on devices that are broken in one way each: the
//! check of that way fails, with a hint, and no other.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{Agent, AgentOptions, World, program};
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A port that is free for whoever asks, so that a test's machine may use 8000 for something else.
fn options() -> AgentOptions {
    AgentOptions { config: "[local]\nhttp = \"127.0.0.1:0\"\n".into() }
}

fn check_output(state_dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.args(["check", "--state-dir"]).arg(state_dir).args(more).output().unwrap()
}

/// The report, its exit code already compared with what it says.
fn check(state_dir: &Path) -> Value {
    let output = check_output(state_dir, &["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = if report["ok"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{report:#}");
    report
}

/// The names of the checks with this outcome. Whatever is not well must say what to do.
fn named(report: &Value, outcome: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let found = checks.filter(|check| check["outcome"] == outcome);
    found
        .map(|check| {
            let hint = check["hint"].as_str().unwrap();
            assert!(!hint.is_empty() || ["ok", "skipped"].contains(&outcome), "{check:#}");
            check["name"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Every file of a state folder that the agent's own work does not change, with its bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.path().display().to_string();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if !name.ends_with("-shm") {
            // SQLite's index of its log, which whoever opens it makes anew, is no state.
            found.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_healthy_device_passes_running_and_stopped() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    let running = check(agent.state_dir());
    assert!(named(&running, "failed").is_empty(), "{running:#}");
    assert!(named(&running, "ok").len() >= 30, "{running:#}");
    assert_eq!(named(&running, "skipped"), ["local-port"], "{running:#}");

    let state_dir = agent.stop().unwrap();
    let before = files(&state_dir);
    let stopped = check(&state_dir);
    assert!(named(&stopped, "failed").is_empty(), "{stopped:#}");
    assert!(named(&stopped, "warning").contains(&"agent-running".to_owned()), "{stopped:#}");
    let table = String::from_utf8(check_output(&state_dir, &[]).stdout).unwrap();
    assert!(table.contains("fashion-answers") && table.contains("64 probes"), "{table}");
    let after = files(&state_dir);
    let names = |files: &[(String, Vec<u8>)], other: &[(String, Vec<u8>)]| {
        let changed = files.iter().filter(|file| !other.contains(file));
        changed.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let changed = (names(&before, &after), names(&after, &before));
    assert_eq!(changed, (vec![], vec![]), "a check changes nothing");
}

#[test]
fn what_is_broken_is_what_fails() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let state_dir = agent.stop().unwrap();
    let failed = || named(&check(&state_dir), "failed");

    let key = state_dir.join("device.key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(failed(), ["permissions"]);
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    let bundle = std::fs::read_dir(state_dir.join("bundles")).unwrap().next().unwrap().unwrap();
    let model = bundle.path().join("model.onnx");
    let good = std::fs::read(&model).unwrap();
    let mut bad = good.clone();
    bad[100] ^= 1;
    std::fs::write(&model, bad).unwrap();
    assert_eq!(failed(), ["fashion-files"]);
    std::fs::write(&model, good).unwrap();

    let config = state_dir.join("agent.toml");
    std::fs::write(&config, "[local]\nhttp = \"127.0.0.1:0\"\n[runtime]\nqeue = 7").unwrap();
    assert!(failed().contains(&"configuration".to_owned()));
    std::fs::write(&config, options().config).unwrap();

    world.age_certificate(&state_dir, 30).unwrap();
    assert_eq!(failed(), ["certificate-expiry"]);
    let agent = Agent::start(&state_dir, &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    assert!(failed().is_empty(), "renewed");

    world.cloud.kill();
    assert_eq!(failed(), ["cloud-udp", "cloud-tcp"]);
    agent.kill();
    assert_eq!(failed(), ["cloud-udp", "cloud-tcp"]);
}

#[test]
fn a_device_that_is_not_enrolled_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agent.toml"), options().config).unwrap();
    let report = check(folder.path());
    assert_eq!(named(&report, "failed"), ["enrolled"], "{report:#}");
    let names: Vec<_> = files(folder.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 1, "{names:?}");
}
