//! Programs that nobody here wrote call the agent.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use outrigger_tests::world::{AgentOptions, World, fashion};

#[test]
fn tritonclient_over_http() {
    let packages = ["tritonclient[http]==2.73.0", "onnxruntime==1.31.1", "numpy"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let model = fashion().join("edge.onnx");
    let images = fashion().join("data/test-images.u8");
    let address = agent.address().to_string();
    let arguments = [address.as_str(), &model.to_string_lossy(), &images.to_string_lossy()];
    print!("{}", environment.run("triton_http.py", &arguments).unwrap());
}
