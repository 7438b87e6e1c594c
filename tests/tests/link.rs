//! Where UDP does not get through, TLS over TCP carries everything, through proxies too, and QUIC comes
//! back by itself; and a device whose address changes loses no request.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::gate::Gate;
use outrigger_tests::proxy::HttpProxy;
use outrigger_tests::world::{Agent, AgentOptions, World};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

const CALLERS: usize = 8;
/// Long enough for a carrier to be given up and another to be found.
const TIMEOUT_US: u64 = 20_000_000;

fn options(config: &str) -> AgentOptions {
    AgentOptions { config: config.to_owned() }
}

/// A fleet whose devices reach the cloud through a gate.
fn world() -> (World, Gate) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let gate = Gate::open(world.cloud.address().parse().unwrap()).unwrap();
    (world, gate)
}

/// A device that was enrolled through the gate.
fn enrolled(world: &World, gate: &Gate, config: &str) -> PathBuf {
    let folder = world.folder().join("device");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("agent.toml"), config).unwrap();
    Agent::enrol(&folder, &gate.address(), &world.token().unwrap()).unwrap();
    folder
}

fn carrier(agent: &Agent, carrier: &str, reason: &str) {
    let what = format!("connected over {carrier}");
    let over = |status: &Value| {
        status["connected"] == true
            && (&status["carrier"], &status["carrier_reason"]) == (&json!(carrier), &json!(reason))
    };
    agent.wait_until(&what, over).unwrap();
}

/// What became of requests that were asked of the cloud, without a pause, while something happened.
struct Load {
    answered: u64,
    /// Those without any answer, and those that the device answered itself.
    lost: Vec<String>,
}

/// Asks the cloud from several applications at once while `happens` runs, and until each was answered
/// once more after it.
fn under_load(agent: &Agent, happens: impl FnOnce(&AtomicU64)) -> Load {
    let images = Images::test().unwrap();
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let caller = |index: usize| {
        let mut client = agent.client().unwrap();
        let mut lost = Vec::new();
        let mut last = false;
        while !last {
            last = over.load(SeqCst);
            let parameters = json!({ "placement": "cloud", "timeout": TIMEOUT_US });
            let response = ask(&mut client, images.pixels(index), &parameters).unwrap();
            let said = match response.status {
                200 => response.split().unwrap().0["parameters"].clone(),
                _ => response.json().unwrap(),
            };
            match said["placement"] == "cloud" {
                true => _ = answered.fetch_add(1, SeqCst),
                false => lost.push(said.to_string()),
            }
        }
        lost
    };
    let lost = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|n| scope.spawn(move || caller(n))).collect();
        happens(&answered);
        over.store(true, SeqCst);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    Load { answered: answered.load(SeqCst), lost }
}

/// Waits until so many more requests were answered.
fn answered_more(answered: &AtomicU64, more: u64) {
    let enough = answered.load(SeqCst) + more;
    while answered.load(SeqCst) < enough {
        std::thread::yield_now();
    }
}

fn check(world: &World, name: &str) -> Value {
    let program = outrigger_tests::world::program("outrigger-agent").unwrap();
    let folder = world.folder().join("device");
    let output =
        Command::new(program).args(["check", "--json", "--state-dir"]).arg(folder).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap().clone()
}

#[test]
fn udp_is_blocked_from_the_very_first_contact_and_then_it_is_not() {
    let (world, gate) = world();
    gate.set_udp(false);
    let agent = Agent::start(&enrolled(&world, &gate, ""), &options("")).unwrap();
    agent.wait_active("fashion", 1).unwrap(); // blobs and control came over TCP
    carrier(&agent, "tcp", "udp_silent");
    assert!(gate.connections() >= 3, "enrolment, control, and downloads beside it");
    let list = world.operator.run(&["device", "list"]).unwrap();
    assert!(list.contains("connected over TCP (UDP is silent)"), "{list}");
    assert_eq!(check(&world, "cloud-udp")["outcome"], "warning");
    assert_eq!(check(&world, "cloud-tcp")["outcome"], "ok");

    let load = under_load(&agent, |answered| {
        answered_more(answered, 100);
        gate.set_udp(true);
        carrier(&agent, "quic", "udp_answers");
        answered_more(answered, 100);
    });
    assert!(load.lost.is_empty() && load.answered >= 200, "{:?}", load.lost);
}

#[test]
fn udp_is_blocked_while_requests_are_under_way() {
    let (world, gate) = world();
    let agent = Agent::start(&enrolled(&world, &gate, ""), &options("")).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    carrier(&agent, "quic", "udp_answers");
    let load = under_load(&agent, |answered| {
        answered_more(answered, 100);
        gate.set_udp(false);
        carrier(&agent, "tcp", "udp_silent");
        answered_more(answered, 100);
    });
    // Each is asked anew over TCP, if that is there within a second; else the device answers itself.
    let whole = |verdict: &String| verdict.contains("edge-degraded");
    assert!(load.lost.len() <= CALLERS && load.lost.iter().all(whole), "{:?}", load.lost);
    assert!(load.answered >= 200, "{:?}", load.lost);
}

#[test]
fn a_nat_that_forgets_and_a_port_that_is_shut_lose_no_request() {
    let (world, gate) = world();
    let agent = Agent::start(&enrolled(&world, &gate, ""), &options("")).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let load = under_load(&agent, |answered| {
        for _ in 0..3 {
            answered_more(answered, 50);
            gate.forget();
        }
        answered_more(answered, 50);
        gate.shut_ports_in_use();
        answered_more(answered, 50);
    });
    assert!(load.lost.is_empty() && load.answered >= 250, "{:?}", load.lost);
    let status = agent.status().unwrap();
    let link = &status["counters"]["link"];
    assert!(link["paths_changed"].as_u64().unwrap() >= 1, "{link}");
    assert_eq!((&link["connects"], &status["carrier"]), (&json!(1), &json!("quic")), "{link}");
}

#[test]
fn through_a_proxy_with_credentials_and_not_without() {
    let (world, gate) = world();
    gate.set_udp(false);
    let proxy = HttpProxy::start(Some("device:pass word")).unwrap();
    let secret = world.folder().join("proxy-credentials");
    std::fs::write(&secret, "device:pass word\n").unwrap();
    let mode = |mode| {
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    mode(0o600).unwrap();
    let through = format!("[link]\nproxy = \"http://{}\"\n", proxy.address());
    let with = format!("{through}proxy_credentials_file = {secret:?}\n");

    let folder = enrolled(&world, &gate, &with);
    let agent = Agent::start(&folder, &options(&with)).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    carrier(&agent, "tcp", "udp_silent");
    assert!(proxy.tunnels() >= 3, "enrolment, control, and downloads");
    assert_eq!(proxy.tunnels(), gate.connections(), "nothing goes past the proxy");
    let load = under_load(&agent, |answered| answered_more(answered, 50));
    assert!(load.lost.is_empty(), "{:?}", load.lost);
    agent.stop().unwrap();

    let agent = Agent::start(&folder, &options(&through)).unwrap();
    let told = check(&world, "cloud-tcp");
    assert_eq!(told["outcome"], "failed", "{told}");
    assert!(told["hint"].as_str().unwrap().contains("proxy_credentials_file"), "{told}");
    assert_eq!(agent.status().unwrap()["connected"], false);
    agent.stop().unwrap();

    mode(0o644).unwrap();
    let agent = Agent::start(&folder, &options(&with)).unwrap();
    let told = check(&world, "cloud-tcp");
    assert!(told["detail"].as_str().unwrap().contains("mode 0600"), "{told}");
    assert_eq!(agent.status().unwrap()["connected"], false);
}
