//! Devices, and clouds, whose clock is wrong: years off, either way, set while they run, or not set at
//! all. None is locked out, and nothing that has ended is taken for valid.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use link::pki::{DeviceCertificate, chain_from_pem};
use outrigger_tests::faketime::{FakeClock, FakeTime};
use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::world::{Agent, AgentOptions, World, program};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn options() -> AgentOptions {
    AgentOptions { config: "[link]\nreconnect_max_s = 1\n".into() }
}

/// Enrols a device whose clock is wrong already.
fn enrol(world: &World, name: &str, clock: &FakeClock) -> PathBuf {
    let state_dir = world.folder().join(name);
    let (cloud, token) = (world.cloud.address(), world.token().unwrap());
    let output = Agent::try_enrol_in(&state_dir, &cloud, &token, &clock.environment()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    state_dir
}

fn start(state_dir: &Path, clock: &FakeClock) -> Agent {
    Agent::start_in(state_dir, &options(), &clock.environment()).unwrap()
}

fn wait_clock(agent: &Agent, text: &str) {
    let told = |status: &Value| status["clock"]["text"].as_str().unwrap().contains(text);
    agent.wait_until(text, told).unwrap();
}

fn counter(agent: &Agent, group: &str, name: &str) -> u64 {
    agent.status().unwrap()["counters"][group][name].as_u64().unwrap()
}

/// Where the answer for a request comes from that must go to the cloud if it can.
fn placement(agent: &Agent) -> String {
    let images = Images::test().unwrap();
    let mut client = agent.client().unwrap();
    let parameters = json!({ "placement": "cloud", "timeout": 2_000_000 });
    let response = ask(&mut client, images.pixels(0), &parameters).unwrap();
    if response.status != 200 {
        return format!("{}", response.status);
    }
    response.split().unwrap().0["parameters"]["placement"].as_str().unwrap().to_owned()
}

fn answers(agent: &Agent) {
    let images = Images::test().unwrap();
    let mut client = agent.client().unwrap();
    let parameters = json!({ "placement": "edge", "timeout": 2_000_000 });
    assert_eq!(ask(&mut client, images.pixels(0), &parameters).unwrap().status, 200);
}

/// The outcome and words of one check.
fn check(state_dir: &Path, clock: &FakeClock, name: &str) -> (String, String) {
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.args(["check", "--json", "--state-dir"]).arg(state_dir);
    let output = command.envs(clock.environment()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name).unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("outcome"), text("detail"))
}

#[test]
fn years_off_a_device_enrols_connects_defers_downloads_renews_and_serves_offline() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    for (name, off, words) in [
        ("behind", "-6y", "6.0 years behind; using signed time from the cloud"),
        ("ahead", "+6y", "6.0 years ahead; using signed time from the cloud"),
        ("unset", "@1970-01-01 00:00:10", "years behind; using signed time from the cloud"),
        ("far-ahead", "+60y", "60.0 years ahead; using signed time from the cloud"),
    ] {
        let clock = faketime.clock(&world.folder().join(format!("{name}.clock")), off).unwrap();
        let state_dir = enrol(&world, name, &clock);
        let agent = start(&state_dir, &clock);
        agent.wait_active("fashion", 1).unwrap(); // downloaded over the connection
        wait_clock(&agent, words);
        assert_eq!(placement(&agent), "cloud", "{name}");
        assert_eq!(counter(&agent, "link", "renewals"), 0, "the certificate is fresh");
        let (outcome, detail) = check(&state_dir, &clock, "clock");
        assert_eq!((outcome.as_str(), detail.contains(words)), ("warning", true), "{detail}");
        assert_eq!(check(&state_dir, &clock, "certificate-expiry").0, "ok");

        // Away for a month, with the wrong clock.
        agent.stop().unwrap();
        world.age_certificate(&state_dir, 30).unwrap();
        let agent = start(&state_dir, &clock);
        agent.wait_active("fashion", 1).unwrap();
        assert_eq!(counter(&agent, "link", "renewals"), 1, "{name}");

        // No network, and the wrong clock.
        agent.stop().unwrap();
        world.cloud.kill();
        let agent = start(&state_dir, &clock);
        answers(&agent);
        assert_eq!(agent.status().unwrap()["clock"]["verified"], false);
        agent.stop().unwrap();
        world.cloud.restart().unwrap();
    }
}

#[test]
fn a_clock_that_is_set_while_the_agent_runs() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let clock = faketime.clock(&world.folder().join("clock"), "+0").unwrap();
    let state_dir = enrol(&world, "device", &clock);
    let agent = start(&state_dir, &clock);
    agent.wait_active("fashion", 1).unwrap();
    wait_clock(&agent, "agrees with signed time");
    for (off, words) in [("-6y", "6.0 years behind"), ("+6y", "6.0 years ahead")] {
        let connects = counter(&agent, "link", "connects");
        clock.set(off).unwrap();
        wait_clock(&agent, words);
        assert_eq!(placement(&agent), "cloud");
        // The connection is made anew under the wrong clock.
        world.cloud.restart().unwrap();
        agent
            .wait_until("the way back", |status| {
                status["connected"] == true
                    && status["counters"]["link"]["connects"].as_u64() > Some(connects)
            })
            .unwrap();
        assert_eq!(placement(&agent), "cloud");
        clock.set("+0").unwrap();
        wait_clock(&agent, "agrees with signed time");
    }
    assert_eq!(counter(&agent, "clock", "system_doubted"), 2);
    assert_eq!(counter(&agent, "clock", "times_refused"), 0);
}

/// The cloud's clock is right, its certificate has ended: whatever the device's clock says.
#[test]
fn a_certificate_that_has_ended_is_refused_also_by_a_device_that_lives_in_its_time() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (right, device) = (folder.path().join("right"), folder.path().join("device"));
    let right = faketime.clock(&right, "+0").unwrap();
    let device = faketime.clock(&device, "-2y").unwrap();
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let state_dir = enrol(&world, "device", &device);
    let agent = start(&state_dir, &device);
    agent.wait_active("fashion", 1).unwrap();

    // Started two years ago, and never since.
    right.set("-2y").unwrap();
    world.cloud.restart_in(&right.environment()).unwrap();
    right.set("+0").unwrap();
    agent
        .wait_until("the refusal", |status| {
            status["connected"] == false
                && status["counters"]["clock"]["times_refused"].as_u64() > Some(0)
        })
        .unwrap();
    answers(&agent);
    let log = agent.process().output();
    assert!(log.contains("the cloud's certificate is not valid now: it ended"), "{log}");
    let (outcome, detail) = check(&state_dir, &device, "cloud-udp");
    assert_eq!((outcome.as_str(), detail.contains("not valid now")), ("failed", true), "{detail}");

    world.cloud.restart_in(&right.environment()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
}

/// As where a device has been at work for longer than its program is old: a floor begins at the build, which may be days
/// ago, and rises by an hour at each start.
fn has_known_the_time_for_long(state_dir: &Path) {
    let file = state_dir.join("time.json");
    let mut time: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    time["kept"]["floor_ms"] = u64::try_from(now.as_millis()).unwrap().into();
    std::fs::write(&file, time.to_string()).unwrap();
}

/// A device that was told a time two months ahead, and has a certificate from then: once it was
/// started meanwhile, the truth is refused for an hour, not for two months.
#[test]
fn a_cloud_that_was_far_ahead_loses_its_devices_for_a_while_and_not_for_ever() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let clock = faketime.clock(&folder.path().join("cloud"), "+60d").unwrap();
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    world.cloud.restart_in(&clock.environment()).unwrap();
    agent.wait_until("renewed", |s| s["counters"]["link"]["renewals"] == 1).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    wait_clock(&agent, "60.0 days behind");
    assert_eq!(counter(&agent, "clock", "cloud_jumps"), 1);
    // Started anew meanwhile: it can no longer count from the truth, and its floor rises by an hour.
    let state_dir = agent.stop().unwrap();
    has_known_the_time_for_long(&state_dir);
    let agent = Agent::start(&state_dir, &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap(); // which it is before it has heard of the cloud
    agent
        .wait_until("the cloud's time", |status| {
            status["counters"]["clock"]["times_verified"].as_u64() > Some(0)
        })
        .unwrap();

    clock.set("+0").unwrap();
    world.cloud.restart_in(&clock.environment()).unwrap();
    agent
        .wait_until("the refusal", |status| {
            status["counters"]["clock"]["times_refused"].as_u64() > Some(0)
        })
        .unwrap();
    answers(&agent);
    let log = agent.process().output();
    assert!(log.contains("behind what this device knows to have passed"), "{log}");
    assert!(log.contains("enrol again with --replace"), "{log}");

    // Two hours later, and started anew in between: the floor was kept, and is passed.
    let state_dir = agent.stop().unwrap();
    clock.set("+2h").unwrap();
    world.cloud.restart_in(&clock.environment()).unwrap();
    let agent = Agent::start(&state_dir, &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let chain = chain_from_pem(&std::fs::read(state_dir.join("device.pem")).unwrap()).unwrap();
    let certificate = DeviceCertificate::parse(&chain[0]).unwrap();
    let in_two_days = std::time::SystemTime::now() + std::time::Duration::from_secs(2 * 86_400);
    let in_two_days = in_two_days.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(certificate.not_after_s < i64::try_from(in_two_days).unwrap(), "made anew");
}
