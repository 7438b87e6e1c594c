//! Who gets in: one token, one device; and nothing is said to the wrong server.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{Agent, AgentOptions, Cloud, World};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn refused(state_dir: &Path, cloud: &str, token: &Path) -> String {
    let output = Agent::try_enrol(state_dir, cloud, token).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!state_dir.join("enrolment.json").exists(), "nothing is kept of a refusal");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_token_is_good_for_one_device() {
    let world = World::start().unwrap();
    let token = world.token().unwrap();
    let mode = std::fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a token is a secret");

    let (first, second) = (world.folder().join("first"), world.folder().join("second"));
    Agent::enrol(&first, &world.cloud.address(), &token).unwrap();
    let message = refused(&second, &world.cloud.address(), &token);
    assert!(message.contains("used before") && message.contains("hint:"), "{message}");

    // The same device may repeat itself, should the answer have been lost on its way.
    std::fs::remove_file(first.join("enrolment.json")).unwrap();
    Agent::enrol(&first, &world.cloud.address(), &token).unwrap();
    assert_eq!(world.operator.json(&["device", "list"]).unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn a_wrong_cahash_sends_nothing() {
    let world = World::start().unwrap();
    let stranger = Cloud::start(&world.folder().join("stranger")).unwrap();
    let token = world.token().unwrap();
    let message = refused(&world.folder().join("device"), &stranger.address(), &token);
    assert!(message.contains("nothing was sent"), "{message}");
    // The token is still good where it belongs: nobody has seen it.
    let device = world.folder().join("device");
    Agent::enrol(&device, &world.cloud.address(), &token).unwrap();
}

#[test]
fn damaged_and_unknown_tokens_are_refused_with_a_hint() {
    let world = World::start().unwrap();
    let good = std::fs::read_to_string(world.token().unwrap()).unwrap();
    let (id, rest) = good.split_once('.').unwrap();
    let forged = format!("{}.{rest}", id.chars().rev().collect::<String>());
    for (text, expected) in
        [("", "ID.SECRET.CAHASH"), (&good[..40], "ID.SECRET.CAHASH"), (forged.as_str(), "unknown")]
    {
        let file = world.folder().join("token");
        std::fs::write(&file, text).unwrap();
        let message = refused(&world.folder().join("device"), &world.cloud.address(), &file);
        assert!(message.contains(expected) && message.contains("hint:"), "{message}");
    }
}

#[test]
fn keys_are_private_and_two_agents_are_two_devices() {
    let world = World::start().unwrap();
    let agents = ["one", "two"].map(|n| world.agent(n, &AgentOptions::default()).unwrap());
    let ids = agents.each_ref().map(|a| a.status().unwrap()["device"].clone());
    assert_ne!(ids[0], ids[1]);
    for file in [
        agents[0].state_dir().join("device.key"),
        world.cloud.data_dir().join("admin.key"),
        world.cloud.data_dir().join("ca/ca.key"),
    ] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
