//! The agent's own next program: one that holds takes over, in the same process, and whatever is wrong with one,
//! the device ends on the program before, and says why.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use edge::probation::Lives;
use edge::takeover::{Candidate, GRACE_S, Program, Takeover, Terms};
use outrigger_tests::http::HttpClient;
use outrigger_tests::programs::NextProgram;
use outrigger_tests::world::{Agent, AgentOptions, World, eventually, fashion};
use protocol::id::ContentHash;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A program has so long to be well, and is watched for no longer; whole files are what is fetched.
fn options(patience_s: u32) -> AgentOptions {
    let config = format!(
        "[update]\nshadow_quiet_s = 1\nprogram_patience_s = {patience_s}\nprogram_soak_s = 0\n\
         [download]\ndeltas = false\n[link]\nreconnect_max_s = 1\n"
    );
    AgentOptions { config }
}

fn fleet(patience_s: u32) -> (World, Agent) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options(patience_s)).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    (world, agent)
}

fn push(world: &World, program: &NextProgram) {
    let file = program.write(world.folder(), "next").unwrap();
    world.operator.run(&["agent", "push", &file.to_string_lossy()]).unwrap();
}

fn assign(world: &World, version: &str) {
    world.operator.run(&["agent", "assign", version, "--all"]).unwrap();
}

fn wait(agent: &Agent, what: &str, met: impl Fn(&Value) -> bool) -> Value {
    agent.wait_anew(what, met).unwrap()
}

/// Waits until this version runs, and none is to take over.
fn wait_runs(agent: &Agent, version: &str) -> Value {
    wait(agent, &format!("version {version}"), |status| {
        let settled = status["program"]["phase"] == "settled" && status["connected"] == true;
        status["agent_version"] == version && settled
    })
}

/// Waits until the device and the cloud say why a version does not run, and that the installed one does.
fn wait_refused(world: &World, agent: &Agent, version: &str, why: &str) {
    wait(agent, why, |status| {
        let program = &status["program"];
        let says = program["reason"].as_str().is_some_and(|reason| reason.contains(why));
        let refused = program["wanted"] == version && program["phase"] == "refused";
        says && refused && program["is_installed"] == true && status["connected"] == true
    });
    let told = eventually("the cloud knows why", Duration::from_secs(20), || {
        let devices = world.operator.json(&["device", "list"]).ok()?;
        let agent = devices[0]["agent"].clone();
        let says = agent["reason"].as_str()?.contains(why);
        (says && agent["next"] == version && agent["phase"] == "refused").then_some(())
    });
    told.unwrap_or_else(|e| panic!("{e:#}: {}", world.operator.run(&["agent", "status"]).unwrap()));
}

fn answers(agent: &Agent) {
    let mut client = HttpClient::connect(agent.address_anew().unwrap()).unwrap();
    let body = std::fs::read(fashion().join("example.json")).unwrap();
    let response = client.post("/v2/models/fashion/infer", &[], &body).unwrap();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
}

fn installed() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[test]
fn a_program_that_holds_takes_over_in_the_same_process() {
    let (world, agent) = fleet(60);
    let next = NextProgram::version("0.1.1").unwrap();
    push(&world, &next);
    assign(&world, "0.1.1");
    let id = agent.process().id();
    let status = wait_runs(&agent, "0.1.1");
    assert_eq!(status["program"]["is_installed"], false);
    answers(&agent);
    let runs = std::fs::read_link(format!("/proc/{id}/exe")).unwrap();
    let hash = ContentHash::of(next.bytes()).to_string();
    assert_eq!(runs.file_name().unwrap().to_str(), Some(&*hash), "the same process");
    let comm = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap();
    assert_eq!(comm, "outrigger-agent\n");
    let table = world.operator.run(&["agent", "status"]).unwrap();
    assert!(table.contains("0.1.1") && table.contains("cloud"), "{table}");

    // It is still what runs after a restart, which begins with the installed program.
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &options(60)).unwrap();
    wait_runs(&agent, "0.1.1");

    // What was damaged is not begun with: it is fetched anew, and takes over again.
    let state_dir = agent.stop().unwrap();
    let kept = state_dir.join("programs").join(&hash);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[4096] ^= 1;
    std::fs::write(&kept, &bytes).unwrap();
    let agent = Agent::start(&state_dir, &options(60)).unwrap();
    wait_runs(&agent, "0.1.1");
    let output = agent.process().output();
    assert!(output.contains("the program of version 0.1.1 is damaged"), "{output}");

    // Back to what is installed, as the operator says; a version that is older than that is not taken.
    world.operator.run(&["agent", "assign", "--none", "--all"]).unwrap();
    push(&world, &NextProgram::version("0.1.2").unwrap());
    assign(&world, "0.1.2");
    wait_runs(&agent, "0.1.2");
    push(&world, &NextProgram::version("0.0.9").unwrap());
    assign(&world, "0.0.9");
    wait(&agent, "a refusal", |status| {
        let program = &status["program"];
        let why = format!("version {} is installed", installed());
        program["reason"].as_str().is_some_and(|reason| reason.contains(&why))
            && program["is_installed"] == false
    });
    let kept = std::fs::read_dir(state_dir.join("programs")).unwrap().count();
    assert!(kept <= 2, "{kept} programs are kept");
}

#[test]
fn what_does_not_hold_ends_on_the_program_before_with_its_reason() {
    let (world, agent) = fleet(8);
    let version = |version: &str| NextProgram::version(version).unwrap();
    let cases = [
        ("0.1.1", version("0.1.1").that_crashes(), "it ended with signal: 11"),
        ("0.1.2", version("0.1.2").for_arm().unwrap(), "there is no build for this machine"),
        ("0.1.3", version("0.1.3").that_cannot_serve().unwrap(), "it does not serve"),
        (
            "0.1.4",
            version("0.1.4").that_cannot_connect().unwrap(),
            "it has not reached the cloud within 8 s",
        ),
    ];
    for (version, program, why) in cases {
        push(&world, &program);
        assign(&world, version);
        wait_refused(&world, &agent, version, why);
        answers(&agent);
    }
    // The alarm of the last one, which ends what hangs, does not end the program before.
    let end = Instant::now() + Duration::from_secs(u64::from(GRACE_S) + 1);
    while Instant::now() < end {
        answers(&agent);
        std::thread::sleep(Duration::from_millis(200));
    }
    // One that is good takes over after all of them.
    push(&world, &version("0.1.5"));
    assign(&world, "0.1.5");
    wait_runs(&agent, "0.1.5");
    answers(&agent);
}

/// Twice in the middle of its download: what came is not fetched again, and it takes over in the end.
#[test]
fn an_update_that_is_killed_half_way_goes_on_from_there() {
    let mut options = options(60);
    options.config =
        options.config.replace("[link]\n", "[link]\ndownload_bytes_per_s = 12000000\n");
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let mut agent = world.agent("device", &options).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let next = NextProgram::version("0.1.1").unwrap();
    let size = next.bytes().len() as u64;
    push(&world, &next);
    assign(&world, "0.1.1");
    let mut fetched = 0;
    for part in [size / 4, size / 2] {
        let status = wait(&agent, "a part of it", |status| {
            fetched + status["counters"]["downloads"]["fetched_bytes"].as_u64().unwrap_or(0) > part
        });
        assert_eq!(status["agent_version"], installed(), "it is still on its way");
        fetched += status["counters"]["downloads"]["fetched_bytes"].as_u64().unwrap();
        let state_dir = agent.kill();
        agent = Agent::start(&state_dir, &options).unwrap();
    }
    let last = std::cell::Cell::new(0);
    wait(&agent, "the rest of it", |status| {
        let now = status["counters"]["downloads"]["fetched_bytes"].as_u64().unwrap_or(0);
        last.set(now.max(last.get()));
        status["agent_version"] == "0.1.1"
    });
    let last = last.get();
    assert!(last < size * 3 / 4, "{last} of {size} came after half of it had");
    wait_runs(&agent, "0.1.1");
    answers(&agent);
}

#[test]
fn one_that_is_killed_again_and_again_on_trial_gives_way() {
    let (world, mut agent) = fleet(300);
    let program = NextProgram::version("0.1.1").unwrap().that_cannot_connect().unwrap();
    push(&world, &program);
    assign(&world, "0.1.1");
    for _ in 0..3 {
        wait(&agent, "the trial", |status| {
            status["agent_version"] == "0.1.1" && status["program"]["phase"] == "trial"
        });
        answers(&agent);
        let state_dir = agent.kill();
        agent = Agent::start(&state_dir, &options(300)).unwrap();
    }
    wait_refused(&world, &agent, "0.1.1", "it ended 3 times in a row before it was well");
    answers(&agent);
}

/// The start that hangs is ended by the system, and the next one begins with what was before.
#[cfg(target_arch = "x86_64")]
#[test]
fn one_that_hangs_is_ended_without_anybody_waiting_for_it() {
    let (world, agent) = fleet(60);
    let state_dir = agent.stop().unwrap();
    let hangs = NextProgram::version("0.1.1").unwrap().that_hangs().unwrap();
    push(&world, &hangs);
    assign(&world, "0.1.1");
    let program =
        Program { version: "0.1.1".parse().unwrap(), sha256: ContentHash::of(hangs.bytes()) };
    std::fs::create_dir_all(state_dir.join("programs")).unwrap();
    let file = hangs.write(&state_dir.join("programs"), &program.sha256.to_string()).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file, executable).unwrap();
    let mut takeover = Takeover::default();
    let terms = Terms { patience_s: 1, ..Terms::default() };
    let (models, lives) = (vec!["fashion".to_owned()], Lives::begin(""));
    let candidate = Candidate { program, terms, oldest: None, models, lives, begun_s: 0 };
    takeover.stage(candidate).unwrap();
    let record = serde_json::to_vec(&takeover).unwrap();
    std::fs::write(state_dir.join("program.json"), record).unwrap();

    let ended = Agent::start(&state_dir, &options(60)).err().unwrap().to_string();
    assert!(ended.contains("signal: 14"), "{ended}");
    let agent = Agent::start(&state_dir, &options(60)).unwrap();
    wait_refused(&world, &agent, "0.1.1", "did not end by itself");
    answers(&agent);
}

#[test]
fn in_a_fleet_with_a_repository_an_operators_word_is_not_enough() {
    let (world, agent) = fleet(60);
    world.operator.run(&["repo", "init"]).unwrap();
    push(&world, &NextProgram::version("0.1.1").unwrap());
    assign(&world, "0.1.1");
    wait_runs(&agent, "0.1.1");

    // Without the key of targets a push names nothing.
    let folder = world.operator.config_dir().join("repository");
    let away = world.folder().join("away");
    std::fs::rename(&folder, &away).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let next = NextProgram::version("0.1.2").unwrap().write(world.folder(), "next").unwrap();
    let refused = world.operator.run(&["agent", "push", &next.to_string_lossy()]).unwrap_err();
    assert!(refused.to_string().contains("will not install it yet"), "{refused}");
    assign(&world, "0.1.2");
    let status = wait(&agent, "a refusal", |status| {
        let reason = status["program"]["reason"].as_str().unwrap_or_default();
        reason.contains("no role of the repository names +agent/0.1.2/")
    });
    assert_eq!(status["agent_version"], "0.1.1", "{status}");

    // Named afterwards it takes over.
    world.operator.run(&["repo", "sign", "--keys", &away.to_string_lossy()]).unwrap();
    wait_runs(&agent, "0.1.2");
    assert_eq!(status["program"]["phase"], json!("waiting"));
}
