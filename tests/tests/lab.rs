//! Models that are timed on a device for whoever builds them: who may order it, who allows it, and
//! that nothing of them stays or answers there.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{Agent, AgentOptions, Operator, World, fashion};
use std::path::PathBuf;

fn allowing() -> AgentOptions {
    AgentOptions { config: "[lab]\nenabled = true\n".to_owned() }
}

fn id(world: &World) -> String {
    let devices = world.operator.json(&["device", "list"]).unwrap();
    devices[0]["id"].as_str().unwrap().to_owned()
}

struct Measuring {
    models: Vec<PathBuf>,
    device: String,
}

impl Measuring {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["lab", "measure"].map(str::to_owned).to_vec();
        arguments.extend(self.models.iter().map(|model| model.to_str().unwrap().to_owned()));
        let data = fashion().to_str().unwrap().to_owned();
        arguments.extend(["--device".to_owned(), self.device.clone(), "--data".to_owned(), data]);
        arguments.extend(["--time".to_owned(), "1s".to_owned()]);
        arguments
    }

    fn ask(&self, operator: &Operator) -> anyhow::Result<serde_json::Value> {
        let arguments = self.arguments();
        operator.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn refusal(result: anyhow::Result<serde_json::Value>) -> String {
    format!("{:#}", result.unwrap_err())
}

fn lab_files(agent: &Agent) -> usize {
    std::fs::read_dir(agent.state_dir().join("lab")).unwrap().count()
}

#[test]
fn a_delegated_lab_has_models_timed_and_nothing_stays() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &allowing()).unwrap();
    agent.wait_until("connected", |status| status["connected"] == true).unwrap();
    let broken = world.folder().join("broken.onnx");
    std::fs::write(&broken, b"no model").unwrap();
    let models = vec![fashion().join("cloud.onnx"), fashion().join("edge.onnx"), broken];
    let measuring = Measuring { models, device: id(&world) };
    let refused = refusal(measuring.ask(&world.operator));
    assert!(refused.contains("no operator lets this machine"), "{refused}");

    world.operator.run(&["lab", "delegate", "--for", "1h"]).unwrap();
    let answer = measuring.ask(&world.operator).unwrap();
    let timed = answer["measured"]["models"].as_array().unwrap();
    let [cloud, edge, broken] = timed.as_slice() else { panic!("{answer}") };
    assert_eq!(cloud["times"]["speedup"], 1.0);
    assert!(edge["times"]["speedup"].as_f64().unwrap() > 1.5, "a much smaller model: {answer}");
    assert!(edge["times"]["runs"].as_u64().unwrap() >= 5, "{answer}");
    assert!(!broken["failed"].as_str().unwrap().is_empty(), "{answer}");
    let runtime = answer["measured"]["machine"]["runtime"].as_str().unwrap();
    assert!(runtime.contains("provider cpu, one thread"), "{runtime}");

    assert_eq!(lab_files(&agent), 0);
    let status = agent.status().unwrap();
    assert_eq!(status["models"].as_array().unwrap().len(), 0, "nothing was installed");
    assert_eq!(status["counters"]["measurements"]["done"], 1);
    for file in &measuring.models {
        let hash = protocol::id::ContentHash::of(&std::fs::read(file).unwrap()).to_string();
        let blob = world.cloud.data_dir().join("blobs").join(&hash[..2]).join(&hash);
        assert!(!blob.exists(), "the cloud keeps {}", file.display());
    }
}

#[test]
fn only_delegated_labs_and_only_where_the_owner_allows_it() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_until("connected", |status| status["connected"] == true).unwrap();
    let models = vec![fashion().join("edge.onnx")];
    let measuring = Measuring { models, device: id(&world) };

    // A lab of its own, with a key of the API that ships nothing.
    let lab = Operator::new(&world.folder().join("lab"));
    let key = world.folder().join("lab-api.key");
    let key = key.to_str().unwrap();
    let create = ["key", "create", "--name", "lab", "--role", "signer", "-o", key];
    world.operator.run(&create).unwrap();
    lab.run(&["login", "--cloud", &world.cloud.address(), "--key-file", key]).unwrap();
    let public = lab.run(&["lab", "key"]).unwrap();
    let delegation = world.folder().join("delegation.json");
    let delegation = delegation.to_str().unwrap();
    let delegate = |operator: &Operator, device: &str| {
        let arguments = ["lab", "delegate", public.trim(), "--device", device, "-o", delegation];
        operator.run(&arguments).unwrap();
        lab.run(&["lab", "accept", delegation]).unwrap();
    };
    delegate(&lab, &measuring.device);
    let refused = refusal(measuring.ask(&lab));
    assert!(refused.contains("not trusted here"), "delegated by itself: {refused}");
    delegate(&world.operator, "another-device");
    let refused = refusal(measuring.ask(&lab));
    assert!(refused.contains("may not have models measured on this device"), "{refused}");
    delegate(&world.operator, &measuring.device);
    let refused = refusal(measuring.ask(&lab));
    assert!(refused.contains("owner does not let models be measured"), "{refused}");
    assert!(refused.contains("[lab] enabled = true"), "{refused}");
    assert_eq!(agent.status().unwrap()["counters"]["measurements"]["refused"], 1);

    // The owner allows it, and the same order of things passes.
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &allowing()).unwrap();
    agent.wait_until("connected", |status| status["connected"] == true).unwrap();
    let answer = measuring.ask(&lab).unwrap();
    assert_eq!(answer["measured"]["models"][0]["times"]["speedup"], 1.0);
}

#[test]
fn the_times_of_the_device_decide_what_a_search_chooses() {
    let world = World::start().unwrap();
    let agent = world.agent("device", &allowing()).unwrap();
    agent.wait_until("connected", |status| status["connected"] == true).unwrap();
    world.operator.run(&["lab", "delegate"]).unwrap();
    let out = world.folder().join("small");
    let (onnx, data) = (fashion().join("cloud.onnx"), fashion());
    let (onnx, data) = (onnx.to_str().unwrap(), data.to_str().unwrap());
    let (out, device) = (out.to_str().unwrap(), id(&world));
    let compress = ["model", "compress", onnx, "--calibration", data, "--device", &device];
    let search = ["--target-drop", "5%", "--time-budget", "2s", "-o", out];
    let report = world.operator.json(&[&compress[..], &search[..]].concat()).unwrap();
    let outcome = &report["outcome"];
    assert_eq!(outcome["elsewhere"]["runtime"], outcome["machine"]["runtime"], "{outcome:#}");
    let reason = outcome["choice"]["reason"].as_str().unwrap();
    assert!(reason.contains("on the device"), "{reason}");
    let page = std::fs::read_to_string(world.folder().join("small/report.html")).unwrap();
    assert!(page.contains("instructions of the device"), "{page}");
}
