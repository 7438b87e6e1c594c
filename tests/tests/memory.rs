//! More models than memory: three are installed and the budget holds two. All of them answer, the
//! least recently used makes room, and the process stays as large as the budget says.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, request_body};
use outrigger_tests::http::{HttpClient, HttpResponse};
use outrigger_tests::world::{Agent, AgentOptions, World, fashion, model_status};
use serde_json::{Value, json};

const MODELS: [&str; 3] = ["coat", "shirt", "shoe"];

/// Three models of another name each, as large as the demo's larger variant.
fn ship(world: &World) {
    let recipe = std::fs::read_to_string(fashion().join("model.toml")).unwrap();
    let recipe = recipe.split("[calibration]").next().unwrap().replace("edge.onnx", "cloud.onnx");
    for name in MODELS {
        let folder = world.folder().join(format!("recipe-{name}"));
        std::fs::create_dir_all(folder.join("data")).unwrap();
        for file in ["cloud.onnx", "labels.json", "data/calibration-images.u8"] {
            std::fs::copy(fashion().join(file), folder.join(file)).unwrap();
        }
        let own = recipe.replace("name = \"fashion\"", &format!("name = \"{name}\""));
        let edge_only = own.replace("[variants.cloud]\nonnx = \"cloud.onnx\"\n", "");
        std::fs::write(folder.join("model.toml"), edge_only).unwrap();
        world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
        world.operator.run(&["model", "assign", name, "--all"]).unwrap();
    }
}

fn post(client: &mut HttpClient, model: &str, pixels: &[u8], timeout_us: u64) -> HttpResponse {
    let (len, body) = request_body(pixels, &json!({ "timeout": timeout_us }));
    let len = len.to_string();
    let headers = [("Inference-Header-Content-Length", len.as_str())];
    client.post(&format!("/v2/models/{model}/infer"), &headers, &body).unwrap()
}

fn answer(client: &mut HttpClient, model: &str, pixels: &[u8]) -> String {
    let response = post(client, model, pixels, 30_000_000);
    assert_eq!(response.status, 200, "{model}: {:?}", response.json());
    response.split().unwrap().0["parameters"]["label"].as_str().unwrap().to_owned()
}

fn running<'a>(status: &'a Value, model: &str, field: &str) -> &'a Value {
    &model_status(status, model)["running"][field]
}

/// Room for any two of them. What was measured differs, since other work goes on beside the loads.
fn budget_bytes(status: &Value) -> u64 {
    let mut sizes = MODELS.map(|model| running(status, model, "memory_bytes").as_u64().unwrap());
    sizes.sort_unstable();
    assert!(sizes[0] > 3_000_000, "less than one fits beside two: {sizes:?}");
    (sizes[1] + sizes[2]).div_ceil(1_000_000) * 1_000_000
}

fn with_budget(bytes: u64) -> AgentOptions {
    AgentOptions { config: format!("[runtime]\nmemory_budget_mb = {}\n", bytes / 1_000_000) }
}

/// What is left by the first round that adds no more than a twentieth to the one before: on a busy machine
/// the heap has not been through all that it will be through after one. A heap that grows for ever never
/// settles.
fn settled(mut round: impl FnMut() -> u64) -> u64 {
    let mut before = round();
    for _ in 0..10 {
        let now = round();
        if now <= before + before / 20 {
            return now;
        }
        before = now;
    }
    panic!("PSS grows from round to round: {before} kB");
}

#[test]
fn three_models_and_a_budget_for_two() {
    let world = World::start().unwrap();
    ship(&world);
    let agent = world.agent("device", &with_budget(0)).unwrap();
    for model in MODELS {
        agent.wait_active(model, 1).unwrap();
    }
    let images = Images::test().unwrap();
    let mut client = agent.client().unwrap();
    let expected: Vec<_> = (0..20).map(|i| answer(&mut client, "coat", images.pixels(i))).collect();
    let free = agent.status().unwrap();
    assert_eq!(free["memory"]["budget_bytes"], Value::Null);
    let budget = budget_bytes(&free);

    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &with_budget(budget)).unwrap();
    let mut client = agent.client().unwrap();
    let taken = |status: &Value| status["memory"]["models_bytes"].as_u64().unwrap();
    let after_start = agent.status().unwrap();
    assert!(taken(&after_start) <= budget, "{after_start:#}");
    assert_eq!(running(&after_start, "shoe", "memory"), "on demand", "known to find no room");

    // In turn, so that each request finds its model gone; the answers are the same.
    let round = |client: &mut HttpClient| {
        for (index, label) in expected.iter().enumerate() {
            let model = MODELS[index % 3];
            assert_eq!(answer(client, model, images.pixels(index)), *label, "{model} {index}");
        }
        let status = agent.status().unwrap();
        assert!(taken(&status) <= budget, "{status:#}");
        agent.process().pss_kb().unwrap()
    };
    let first = settled(|| round(&mut client));
    let last = (0..5).map(|_| round(&mut client)).last().unwrap();
    println!("budget {budget} B; PSS {first} kB when it had settled, {last} kB five rounds later");
    assert!(last <= first + budget / 1000, "PSS grew from {first} kB to {last} kB");

    let counters = agent.status().unwrap()["counters"]["memory"].clone();
    let count = |name: &str| counters[name].as_u64().unwrap();
    assert!(count("evictions") >= 100 && count("reloads") >= 100, "{counters}");
    assert_eq!((count("failures"), count("refusals")), (0, 0), "{counters}");

    all_at_once(&agent, &images, &expected);
    what_cannot_wait_is_told_so(&agent, &images);
    a_damaged_file_is_noticed_at_the_reload(&agent, &images);
}

/// Six applications at once, two for each model: nobody is lost, and each load is shared.
fn all_at_once(agent: &Agent, images: &Images, expected: &[String]) {
    std::thread::scope(|scope| {
        for worker in 0..6 {
            scope.spawn(move || {
                let mut client = agent.client().unwrap();
                for (index, label) in expected.iter().enumerate() {
                    let model = MODELS[(worker + index) % 3];
                    let given = answer(&mut client, model, images.pixels(index));
                    assert_eq!(given, *label, "{model} {index}");
                }
            });
        }
    });
    let status = agent.status().unwrap();
    assert!(status["memory"]["models_bytes"].as_u64() <= status["memory"]["budget_bytes"].as_u64());
}

/// The model that is not in memory now.
fn on_demand(agent: &Agent) -> &'static str {
    let status = agent.status().unwrap();
    let gone = |model: &&str| running(&status, model, "memory") == "on demand";
    MODELS.into_iter().find(gone).unwrap()
}

/// A request with less time than a load takes is refused with a type, and its load goes on.
fn what_cannot_wait_is_told_so(agent: &Agent, images: &Images) {
    let model = on_demand(agent);
    let mut client = agent.client().unwrap();
    let response = post(&mut client, model, images.pixels(0), 1000);
    assert_eq!(response.status, 503, "{:?}", response.json());
    let problem = response.json().unwrap();
    assert!(problem["code"] == "overloaded" && problem["retry_after_ms"].is_u64(), "{problem}");
    let there = |status: &Value| running(status, model, "memory") == "resident";
    agent.wait_until("the load to go on", there).unwrap();
}

fn a_damaged_file_is_noticed_at_the_reload(agent: &Agent, images: &Images) {
    let model = on_demand(agent);
    let status = agent.status().unwrap();
    let bundle = model_status(&status, model)["active_bundle"].as_str().unwrap();
    let file = agent.state_dir().join("bundles").join(bundle).join("model.onnx");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let mut client = agent.client().unwrap();
    let response = post(&mut client, model, images.pixels(0), 30_000_000);
    assert_eq!(response.status, 500, "{:?}", response.json());
    let text = response.json().unwrap().to_string();
    assert!(text.contains("was altered"), "{text}");
    for other in MODELS.into_iter().filter(|other| *other != model) {
        answer(&mut client, other, images.pixels(0));
    }
}
