//! Triton's own Python client, over HTTP and gRPC.
#![allow(clippy::unwrap_used)]

use outrigger_tests::foreign::check;
use outrigger_tests::python::Environment;
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{Agent, AgentOptions, World};

fn socket(agent: &Agent) -> String {
    agent.socket().to_string_lossy().into_owned()
}

const PACKAGES: [&str; 3] = ["tritonclient[http,grpc]==2.73.0", "onnxruntime==1.31.1", "numpy"];

#[test]
fn over_http() {
    let addresses = |agent: &Agent| [agent.address().to_string(), socket(agent)];
    check(&PACKAGES, "triton_http.py", addresses).unwrap();
}

#[test]
fn over_grpc() {
    let addresses = |agent: &Agent| [agent.grpc_address().to_string(), socket(agent)];
    check(&PACKAGES, "triton_grpc.py", addresses).unwrap();
}

/// Sequences: gRPC streams, unary calls and HTTP, interleaved, bit for bit as one-shot.
#[test]
fn streams_with_state() {
    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    let world = World::start().unwrap();
    SmallModel::Total.ship(&world).unwrap();
    SmallModel::Sums.ship(&world).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("total", 1).unwrap();
    agent.wait_active("sums", 1).unwrap();
    let (http, grpc) = (agent.address().to_string(), agent.grpc_address().to_string());
    print!("{}", environment.run("triton_streams.py", &[&http, &grpc]).unwrap());
}
