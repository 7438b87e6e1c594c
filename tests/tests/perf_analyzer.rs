//! Triton's load generator asks agent and cloud, over HTTP and gRPC; the cloud over TLS with a key.
#![allow(clippy::unwrap_used)]

use outrigger_tests::foreign::demo_agent;
use outrigger_tests::perf_analyzer::{Door, Load, PerfAnalyzer};
use outrigger_tests::world::World;

const LOAD: Load<'_> =
    Load { model: "fashion", shape: "image:1,28,28", batches: true, in_flight: 2, requests: 200 };

#[test]
fn it_measures_the_agent() {
    let Some(perf_analyzer) = PerfAnalyzer::find().unwrap() else { return };
    let (_world, agent) = demo_agent().unwrap();
    for (grpc, address) in [(false, agent.address()), (true, agent.grpc_address())] {
        let door = Door { address, grpc, secured: None };
        println!("grpc {grpc}: {:?}", perf_analyzer.measure(&door, &LOAD).unwrap());
    }
}

#[test]
fn it_measures_the_cloud_over_tls_for_whoever_has_a_key() {
    let Some(perf_analyzer) = PerfAnalyzer::find().unwrap() else { return };
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let create = ["key", "create", "--name", "perf", "--role", "client", "--model", "fashion"];
    let key = world.operator.json(&create).unwrap()["key"].as_str().unwrap().to_owned();
    let (good, bad) = (format!("Bearer {key}"), format!("Bearer {}", key.replace('.', ".0")));
    let (address, ca) = (world.cloud.address().parse().unwrap(), world.cloud.ca_pem());
    for grpc in [false, true] {
        let door = |authorization| Door { address, grpc, secured: Some((&ca, authorization)) };
        println!("grpc {grpc}: {:?}", perf_analyzer.measure(&door(&good), &LOAD).unwrap());
        assert!(perf_analyzer.measure(&door(&bad), &LOAD).is_err(), "grpc {grpc}");
    }
}
