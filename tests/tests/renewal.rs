//! Certificates end; devices that were away come back all the same.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use link::pki::{DeviceCertificate, chain_from_pem, chain_to_pem};
use outrigger_tests::world::{Agent, AgentOptions, World};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use std::path::Path;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn certificate(state_dir: &Path) -> DeviceCertificate {
    let chain = chain_from_pem(&std::fs::read(state_dir.join("device.pem")).unwrap()).unwrap();
    DeviceCertificate::parse(&chain[0]).unwrap()
}

/// Gives the device the certificate that it would have had `days` ago, as the fleet CA made it.
fn age(world: &World, state_dir: &Path, days: u32) {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let ca = chain_from_pem(read(&state_dir.join("ca.pem")).as_bytes()).unwrap().remove(0);
    let ca_key = KeyPair::from_pem(&read(&world.cloud.data_dir().join("ca/ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_der(&ca, ca_key).unwrap();
    let key = KeyPair::from_pem(&read(&state_dir.join("device.key"))).unwrap();
    let mut params = CertificateParams::default();
    let name = certificate(state_dir).device;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - DAY * (days + 1)).into();
    params.not_after = (SystemTime::now() - DAY * days).into();
    let old = params.signed_by(&key, &issuer).unwrap();
    std::fs::write(state_dir.join("device.pem"), chain_to_pem(&[old.der().clone(), ca])).unwrap();
}

#[test]
fn an_expired_certificate_is_renewed_for_the_same_device() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let state_dir = world.agent("device", &AgentOptions::default()).unwrap().stop().unwrap();
    let before = certificate(&state_dir);
    age(&world, &state_dir, 30);

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
    age(&world, &state_dir, 91);

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
