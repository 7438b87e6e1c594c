//! Programs that nobody here wrote call the agent.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{Agent, AgentOptions, World, fashion};

/// Runs a script against an agent with the demo model; it is told two of the agent's addresses.
fn check(packages: &[&str], script: &str, addresses: impl Fn(&Agent) -> [String; 2]) {
    let Some(environment) = Environment::with(packages).unwrap() else { return };
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let model = fashion().join("edge.onnx").to_string_lossy().into_owned();
    let images = fashion().join("data/test-images.u8").to_string_lossy().into_owned();
    let [first, second] = addresses(&agent);
    let arguments = [first.as_str(), second.as_str(), &model, &images];
    print!("{}", environment.run(script, &arguments).unwrap());
}

fn socket(agent: &Agent) -> String {
    agent.socket().to_string_lossy().into_owned()
}

const TRITON: [&str; 3] = ["tritonclient[http,grpc]==2.73.0", "onnxruntime==1.31.1", "numpy"];

#[test]
fn tritonclient_over_http() {
    check(&TRITON, "triton_http.py", |agent| [agent.address().to_string(), socket(agent)]);
}

#[test]
fn tritonclient_over_grpc() {
    check(&TRITON, "triton_grpc.py", |agent| [agent.grpc_address().to_string(), socket(agent)]);
}

/// Sequences: gRPC streams, unary calls and HTTP, interleaved, bit for bit as one-shot.
#[test]
fn tritonclient_streams_with_state() {
    let Some(environment) = Environment::with(&TRITON).unwrap() else { return };
    let world = World::start().unwrap();
    SmallModel::Total.ship(&world).unwrap();
    SmallModel::Sums.ship(&world).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("total", 1).unwrap();
    agent.wait_active("sums", 1).unwrap();
    let (http, grpc) = (agent.address().to_string(), agent.grpc_address().to_string());
    print!("{}", environment.run("triton_streams.py", &[&http, &grpc]).unwrap());
}

#[test]
fn kserve_clients() {
    let packages = ["kserve==0.21.0", "onnxruntime==1.31.1", "numpy"];
    check(&packages, "kserve_client.py", |agent| {
        [agent.address().to_string(), agent.grpc_address().to_string()]
    });
}
