//! Models of the cloud share a budget of memory: what is asked and not there is loaded inside the
//! request's deadline, and the one that was not asked for longest makes room, all of it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::onnx::{perceptron_probes, perceptron_specs, wide_perceptron};
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::workers;
use outrigger_tests::world::{Api, Publisher, Single, World, eventually, pss_kb};
use protocol::id::Variant;
use protocol::tensor::Tensor;
use serde_json::{Value, json};
use std::time::Duration;

const MODELS: [&str; 3] = ["one", "two", "three"];
const PATIENCE: Duration = Duration::from_secs(30);
/// 16 MB of weights.
const WIDTH: i64 = 2048;

struct Fleet {
    world: World,
    api: Api,
    probes: Vec<(Tensor, Tensor)>,
}

impl Fleet {
    /// A cloud that has the three models, each of which the operator's key may ask.
    fn start() -> Self {
        let world = World::start().unwrap();
        let publisher = Publisher::with_keys_of(&world.operator).unwrap();
        let mut probes = Vec::new();
        for (seed, model) in (0..).zip(MODELS) {
            let single = single(&world, model, wide_perceptron(seed, WIDTH));
            probes.push(single.probes[0].clone());
            publisher.publish_single(&single).unwrap();
        }
        let api = Api::with_key_of(&world.operator).unwrap();
        Self { world, api, probes }
    }

    /// Each model as the operator sees it.
    fn listed(&self) -> Vec<Value> {
        let listed = self.world.operator.json(&["model", "list"]).unwrap();
        MODELS
            .map(|name| {
                listed.as_array().unwrap().iter().find(|m| m["model"] == name).unwrap().clone()
            })
            .into()
    }

    fn in_memory(&self) -> usize {
        self.listed().iter().filter(|model| model["memory"] == "resident").count()
    }

    /// Asks, and compares the answer.
    fn ask(&self, at: usize) {
        let (input, output) = &self.probes[at];
        let body = json!({
            "parameters": { "timeout": 20_000_000 },
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 64], "data": input.to_f32() }],
        });
        let path = format!("/v2/models/{}/infer", MODELS[at]);
        let answer = self.api.call("POST", &path, &[], body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}: {}", MODELS[at], answer.json());
        let got = answer.json()["outputs"][0]["data"].clone();
        let got: Vec<f32> = serde_json::from_value(got).unwrap();
        let near = |(a, b): (&f32, f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
        assert!(got.iter().zip(output.to_f32().unwrap()).all(near), "{}", MODELS[at]);
    }

    fn stats(&self) -> Value {
        self.api.accepted("GET", "/v1/stats", b"").unwrap().json()
    }
}

fn single(world: &World, model: &str, onnx: Vec<u8>) -> Single {
    let (input, output) = perceptron_specs();
    let probes = perceptron_probes(world.folder(), &onnx).unwrap();
    let (model, variant) = (model.to_owned(), Variant::Cloud);
    Single { model, version: 1, variant, onnx, input, output, probes }
}

#[test]
fn what_is_asked_makes_room_and_is_loaded_inside_the_deadline() {
    let mut fleet = Fleet::start();
    let sizes: Vec<u64> =
        fleet.listed().iter().map(|model| model["memory_bytes"].as_u64().unwrap()).collect();
    let weights = 4 * WIDTH.unsigned_abs().pow(2);
    assert!(sizes.iter().all(|bytes| *bytes > weights), "measured, not guessed: {sizes:?}");
    // Two of them fit. Workers share the pages of the program: the first alone is the largest, and each of three is smaller.
    let budget_mb = sizes.iter().max().unwrap() * 22 / 10 / 1_000_000;
    let budget = ("OUTRIGGER_CLOUD_RUNTIME_MEMORY_BUDGET_MB", budget_mb.to_string().into());
    fleet.world.cloud.restart_in(&[budget]).unwrap();

    for at in [0, 1, 2, 0, 0, 2, 1, 0] {
        fleet.ask(at);
        assert_eq!(fleet.listed()[at]["memory"], "resident", "{}", MODELS[at]);
        assert!(fleet.in_memory() <= 2);
    }
    // Asked all at once, some wait until others were left.
    std::thread::scope(|scope| {
        for round in 0..9 {
            let fleet = &fleet;
            scope.spawn(move || fleet.ask(round % 3));
        }
    });
    let processes = || workers::of(&fleet.world.cloud).unwrap();
    let only_those = || (processes().len() == fleet.in_memory()).then_some(());
    eventually("the end of the workers that made room", PATIENCE, only_those).unwrap();
    let taken: u64 = processes().into_iter().map(|process| pss_kb(process).unwrap() * 1024).sum();
    assert!(taken <= budget_mb * 1_000_000, "{taken} of {budget_mb} MB");

    let stats = fleet.stats();
    let evicted = stats["models_evicted"].as_u64().unwrap();
    assert!(evicted >= 3 && stats["models_loaded"].as_u64().unwrap() > evicted, "{stats}");
    let metrics = fleet.api.accepted("GET", "/metrics", b"").unwrap().body;
    let scrape = Scrape::parse(std::str::from_utf8(&metrics).unwrap()).unwrap();
    let value = |name: &str| scrape.value(name, &[]).unwrap();
    assert!(value("outrigger_cloud_model_evictions_total") >= evicted as f64);
    assert_eq!(value("outrigger_cloud_memory_budget_bytes"), (budget_mb * 1_000_000) as f64);
}

#[test]
fn a_model_larger_than_the_budget_is_refused_and_one_that_was_there_says_why() {
    let mut fleet = Fleet::start();
    let budget = ("OUTRIGGER_CLOUD_RUNTIME_MEMORY_BUDGET_MB", "12".into());
    fleet.world.cloud.restart_in(&[budget]).unwrap();
    let answer = fleet.api.call("POST", "/v2/models/one/infer", &[], b"{}").unwrap();
    let body = json!({
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 64], "data": vec![0; 64] }],
    });
    let asked = || {
        fleet.api.call("POST", "/v2/models/one/infer", &[], body.to_string().as_bytes()).unwrap()
    };
    assert_eq!(answer.status, 400, "the request is looked at first: {}", answer.json());
    let said = asked().json().to_string();
    assert!(said.contains("needs 18 MB at least") && said.contains("is 12 MB"), "{said}");
    assert_eq!(fleet.listed()[0]["memory"], "too large");
    let publisher = Publisher::with_keys_of(&fleet.world.operator).unwrap();
    let refused =
        publisher.publish_single(&single(&fleet.world, "four", wide_perceptron(9, WIDTH)));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("needs 18 MB at least"), "{refused}");
    assert!(workers::of(&fleet.world.cloud).unwrap().is_empty());
}
