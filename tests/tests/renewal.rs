//! Certificates end; devices that were away come back all the same.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use link::pki::{DeviceCertificate, chain_from_pem};
use outrigger_tests::world::{Agent, AgentOptions, World};
use std::path::Path;

fn certificate(state_dir: &Path) -> DeviceCertificate {
    let chain = chain_from_pem(&std::fs::read(state_dir.join("device.pem")).unwrap()).unwrap();
    DeviceCertificate::parse(&chain[0]).unwrap()
}

#[test]
fn an_expired_certificate_is_renewed_for_the_same_device() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let state_dir = world.agent("device", &AgentOptions::default()).unwrap().stop().unwrap();
    let before = certificate(&state_dir);
    world.age_certificate(&state_dir, 30).unwrap();

    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let after = certificate(&state_dir);
    assert_eq!((&after.device, after.key), (&before.device, before.key));
    assert!(after.not_after_s >= before.not_after_s, "a fresh one");
    assert_eq!(agent.status().unwrap()["counters"]["link"]["renewals"], 1);
}

#[test]
fn past_the_grace_the_device_must_enrol_again_but_goes_on_answering() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let state_dir = agent.stop().unwrap();
    world.age_certificate(&state_dir, 91).unwrap();

    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent
        .wait_until("the refusal", |status| {
            status["counters"]["link"]["renewal_failures"].as_u64() > Some(0)
        })
        .unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status["connected"], false, "{status}");
    assert_eq!(agent.client().unwrap().get("/v2/models/fashion/ready").unwrap().status, 200);
}
