//! Devices whose key lives in a token: SoftHSM and a TPM, made there, used from there, and never outside.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask_cloud_alone};
use outrigger_tests::tokens::{PIN, Token, private};
use outrigger_tests::world::{Agent, AgentOptions, World, eventually, program};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Runs `outrigger-agent ARGS --state-dir DIR` with the token in reach.
fn agent(token: &Token, state_dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.envs(token.environment().iter().cloned()).args(args);
    command.arg("--state-dir").arg(state_dir).output().unwrap()
}

fn enrol(world: &World, token: &Token, state_dir: &Path, uri: &str) -> Output {
    let file = world.token().unwrap();
    let (file, cloud) = (file.to_string_lossy().into_owned(), world.cloud.address());
    let args = ["enrol", "--cloud", &cloud, "--token-file", &file, "--key", uri, "--replace"];
    agent(token, state_dir, &args)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Enrols, answers from the cloud over new connections, and survives restarts of both sides.
fn a_device_lives_on_its_token(world: &mut World, token: &Token) {
    let state_dir = world.folder().join("device");
    let enrolled = enrol(world, token, &state_dir, &token.uri("device"));
    assert!(enrolled.status.success(), "{}", stderr(&enrolled));
    assert!(!state_dir.join("device.key").exists(), "no key in a file");
    let kept = std::fs::read_to_string(state_dir.join("device.key-uri")).unwrap();
    assert!(kept.contains("object=device") && !kept.contains(PIN), "{kept}");

    let images = Images::test().unwrap();
    let start = || Agent::start_in(&state_dir, &AgentOptions::default(), token.environment());
    let placement =
        |agent: &Agent| ask_cloud_alone(&mut agent.client().unwrap(), images.pixels(0)).unwrap();
    let running = start().unwrap();
    running.wait_active("fashion", 1).unwrap();
    assert_eq!(placement(&running), "cloud");
    world.cloud.restart().unwrap();
    running.wait_until("the connection", |status| status["connected"] == true).unwrap();
    running.stop().unwrap();
    // After the agent: a TPM that is a program has one visitor at a time, as a real one without its
    // resource manager.
    let checked = agent(token, &state_dir, &["check", "--json"]);
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("which does not let it out"), "{text}");
    let running = start().unwrap();
    running.wait_active("fashion", 1).unwrap();
    assert_eq!(placement(&running), "cloud");
    running.stop().unwrap();

    let objects = token.tool(&["--login", "--pin", PIN, "-O", "--type", "privkey"]).unwrap();
    assert_eq!(objects.matches("Private Key Object").count(), 1, "used, not made anew: {objects}");
    assert!(objects.contains("never extractable") && objects.contains("local"), "{objects}");
}

#[test]
fn a_key_in_softhsm() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let Some(token) = Token::soft(&world.folder().join("hsm")).unwrap() else { return };
    a_device_lives_on_its_token(&mut world, &token);

    // What goes wrong is named, with what to do.
    let state_dir = world.folder().join("other");
    let check = |uri: &str, expected: &str| {
        let said = stderr(&enrol(&world, &token, &state_dir, uri));
        assert!(said.contains(expected) && said.contains("hint:"), "{said}");
        assert!(!state_dir.join("enrolment.json").exists());
    };
    let good = token.uri("other");
    check(&good.replace("outrigger%20test", "elsewhere"), "no token is there");
    check(&good.replace("libsofthsm2", "libabsent"), "cannot be used");
    check(&good.replace("pin-source=file:", "pin-source=file:/absent"), "cannot be read");
    check(&format!("{good}&pin-value={PIN}"), "does not belong");
    std::fs::set_permissions(token.pin_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    check(&good, "can be read by others");
    std::fs::write(token.pin_file(), "wrong\n").unwrap();
    private(&token.pin_file()).unwrap();
    check(&good, "refuses the PIN");
    std::fs::write(token.pin_file(), format!("{PIN}\n")).unwrap();
    // A key that could be taken out is worth no more than a file.
    let made = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "loose", "--extractable"];
    token.tool(&[&["--login", "--pin", PIN][..], &made].concat()).unwrap();
    check(&token.uri("loose"), "could be taken out");

    // A wrong PIN is shown once, however often the connection is tried; then the device waits for a person.
    let state_dir = world.folder().join("device");
    let file = state_dir.join("device.key-uri");
    let uri = std::fs::read_to_string(&file).unwrap();
    let (spy, module) = token.spied_on().unwrap();
    let through_spy = uri.replace(token.module().to_str().unwrap(), module.to_str().unwrap());
    std::fs::write(&file, &through_spy).unwrap();
    std::fs::write(token.pin_file(), "wrong\n").unwrap();
    let running = Agent::start_in(&state_dir, &AgentOptions::default(), spy.environment()).unwrap();
    let tried = || (spy.calls("C_OpenSession") >= 4).then_some(());
    eventually("four attempts", Duration::from_secs(60), tried).unwrap();
    assert_eq!(spy.calls("C_Login"), 1);
    std::fs::write(token.pin_file(), format!("{PIN}\n")).unwrap();
    running.wait_until("the connection", |status| status["connected"] == true).unwrap();
    assert_eq!(spy.calls("C_Login"), 2);
    running.stop().unwrap();
    std::fs::write(&file, &uri).unwrap();

    // The key is gone: the device says so, and goes on answering by itself.
    let gone = ["--delete-object", "--type", "privkey", "--label", "device"];
    token.tool(&[&["--login", "--pin", PIN][..], &gone].concat()).unwrap();
    let running =
        Agent::start_in(&state_dir, &AgentOptions::default(), token.environment()).unwrap();
    let ready = running.client().unwrap().get("/v2/models/fashion/ready").unwrap();
    assert_eq!(ready.status, 200);
    // SoftHSM shows a token without its name to one process while another one opens it.
    eventually("the word of the check", Duration::from_secs(20), || {
        let checked = agent(&token, &state_dir, &["check", "--json"]);
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        text.contains("no such key in the token").then_some(())
    })
    .unwrap();
    running.stop().unwrap();
}

#[test]
fn a_key_in_a_tpm() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let Some(mut token) = Token::tpm(&world.folder().join("tpm")).unwrap() else { return };
    a_device_lives_on_its_token(&mut world, &token);

    // Without its TPM a device has no way into the fleet, says so, and goes on answering by itself.
    token.pull_out();
    let state_dir = world.folder().join("device");
    let running =
        Agent::start_in(&state_dir, &AgentOptions::default(), token.environment()).unwrap();
    let ready = running.client().unwrap().get("/v2/models/fashion/ready").unwrap();
    assert_eq!(ready.status, 200);
    assert_eq!(running.status().unwrap()["connected"], false);
    running.stop().unwrap();
}
