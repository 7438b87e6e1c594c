//! Models of the cloud run in child processes. Whatever becomes of one of those, the server lives,
//! other models answer, and nothing that was asked is lost.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask, request_body};
use outrigger_tests::hostile;
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::workers;
use outrigger_tests::world::{AgentOptions, Api, ApiResponse, Edge, Publisher, World, eventually};
use protocol::id::Variant;
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Answers of [`hostile::loops_as_told`].
const LOOPED: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [7.0, 8.0, 9.0]), ([0.0, -5.0, 9.0], [18.0, 13.0, 27.0])];
/// Answers of [`hostile::harmless`], which hostile models do not give.
const NEGATED: [([f32; 3], [f32; 3]); 1] = [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0])];

fn api(world: &World) -> Api {
    Api::with_key_of(&world.operator).unwrap()
}

fn ask_cloud(api: &Api, pixels: &[u8], timeout_us: u64) -> ApiResponse {
    let (len, body) = request_body(pixels, &json!({ "timeout": timeout_us }));
    let headers = [("inference-header-content-length", &*len.to_string())];
    api.call("POST", "/v2/models/fashion/infer", &headers, &body).unwrap()
}

fn is_ready(api: &Api) -> bool {
    api.call("GET", "/v2/health/ready", &[], b"").unwrap().status == 200
}

fn worker(world: &World) -> u32 {
    let one = || <[u32; 1]>::try_from(workers::of(&world.cloud).ok()?).ok();
    let [worker] = eventually("one worker", PATIENCE, one).unwrap();
    worker
}

fn until_ready(api: &Api) {
    eventually("readiness", PATIENCE, || is_ready(api).then_some(())).unwrap();
}

/// A cloud whose only model is ready.
fn ready_with_fashion() -> (World, Api) {
    let world = World::start().unwrap();
    let folder = outrigger_tests::world::fashion();
    world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
    let api = api(&world);
    until_ready(&api);
    (world, api)
}

fn publish(
    world: &World,
    model: &str,
    onnx: Vec<u8>,
    probes: &[([f32; 3], [f32; 3])],
) -> anyhow::Result<()> {
    let publisher = Publisher::with_keys_of(&world.operator)?;
    publisher.publish_as(Variant::Cloud, &Edge { model, version: 1, onnx, probes })?;
    Ok(())
}

fn ask_three(api: &Api, model: &str, x: [f32; 3], timeout_us: u64) -> ApiResponse {
    let body = json!({
        "parameters": { "timeout": timeout_us },
        "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 3], "data": x }],
    });
    let path = format!("/v2/models/{model}/infer");
    api.call("POST", &path, &[], body.to_string().as_bytes()).unwrap()
}

#[test]
fn answers_are_bit_for_bit_those_of_one_process_and_an_unloaded_model_leaves_nothing() {
    let mut world = World::start().unwrap();
    world
        .operator
        .run(&["model", "push", &outrigger_tests::world::fashion().to_string_lossy()])
        .unwrap();
    let images = Images::test().unwrap();
    let answers = |world: &World| -> Vec<Vec<u8>> {
        let api = api(world);
        until_ready(&api);
        let answer = |index| {
            let response = ask_cloud(&api, images.pixels(index), 10_000_000);
            assert_eq!(response.status, 200, "{}", response.json());
            assert_eq!(response.tensors().len(), 40);
            response.tensors().to_vec()
        };
        (0..100).map(answer).collect()
    };
    let in_a_worker = answers(&world);
    let worker = worker(&world);
    let server = world.cloud.process().unwrap().id();
    let maps = |process: u32| std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    assert!(maps(worker).contains("libonnxruntime"));
    assert!(!maps(server).contains("libonnxruntime"), "the server itself has no runtime");

    api(&world).accepted("POST", "/v2/repository/models/fashion/unload", b"").unwrap();
    let gone = || (!workers::is_alive(worker)).then_some(());
    eventually("the end of the unloaded model's worker", PATIENCE, gone).unwrap();
    assert!(is_ready(&api(&world)), "nobody misses an unloaded model");
    api(&world).accepted("POST", "/v2/repository/models/fashion/load", b"").unwrap();
    let worker = self::worker(&world);
    world.cloud.kill();
    let gone = || (!workers::is_alive(worker)).then_some(());
    eventually("the end of a killed server's worker", PATIENCE, gone).unwrap();

    world.cloud.restart_in(&[("OUTRIGGER_CLOUD_RUNTIME_WORKERS", "false".into())]).unwrap();
    let in_the_server = answers(&world);
    assert!(workers::of(&world.cloud).unwrap().is_empty());
    assert_eq!(in_a_worker, in_the_server);
}

/// Who asks until it is told to stop.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, ask: impl Fn(usize) -> Result<(), String>) {
        for round in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            match ask(round) {
                Ok(()) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Err(why) => self.failures.lock().unwrap().push(why),
            }
        }
    }

    fn wait_for_answers(&self, more: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        let enough = || (self.answered.load(Ordering::Relaxed) >= before + more).then_some(());
        let waited = eventually("answers", PATIENCE, enough);
        waited.unwrap_or_else(|error| panic!("{error}; {:?}", self.failures.lock().unwrap()));
    }
}

#[test]
fn a_worker_that_is_killed_under_load_loses_no_request() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    let api = api(&world);
    until_ready(&api);
    let load = Load::default();
    let over_https = |round: usize| {
        let response = ask_cloud(&api, images.pixels(round % images.len()), 2_000_000);
        if response.status == 200 { Ok(()) } else { Err(response.json().to_string()) }
    };
    let over_quic = |round: usize| {
        let parameters = json!({ "timeout": 2_000_000, "placement": "cloud" });
        let response = ask(&mut agent.client().unwrap(), images.pixels(round % 100), &parameters);
        let said = response.unwrap().split().unwrap().0;
        if said["parameters"]["placement"] == "cloud" { Ok(()) } else { Err(said.to_string()) }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load.run(over_https));
            scope.spawn(|| load.run(over_quic));
        }
        for _ in 0..5 {
            load.wait_for_answers(20);
            let victim = worker(&world);
            workers::signal(victim, libc::SIGKILL).unwrap();
            let another = || (worker(&world) != victim).then_some(());
            eventually("another worker", PATIENCE, another).unwrap();
        }
        load.wait_for_answers(20);
        load.is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(*load.failures.lock().unwrap(), [""; 0]);
    until_ready(&api);
    assert!(world.cloud.process().unwrap().output().contains("was killed (SIGKILL)"));
}

#[test]
fn readiness_is_false_while_a_model_has_no_worker_and_true_again_afterwards() {
    let (world, api) = ready_with_fashion();
    let first = worker(&world);
    workers::signal(first, libc::SIGTERM).unwrap();
    workers::signal(first, libc::SIGINT).unwrap();
    assert_eq!(ask_cloud(&api, &[0; 784], 2_000_000).status, 200);
    assert_eq!(worker(&world), first, "only the server ends a worker in order");
    // Workers that crash again and again are left alone, so that there is time to look.
    for _ in 0..5 {
        let victim = worker(&world);
        until_ready(&api);
        workers::signal(victim, libc::SIGABRT).unwrap();
        eventually("its end", PATIENCE, || (!workers::is_alive(victim)).then_some(())).unwrap();
    }
    eventually("being held back", PATIENCE, || {
        let response = ask_cloud(&api, &[0; 784], 2_000_000);
        let said = response.json().to_string();
        (response.status == 500 && said.contains("SIGABRT") && said.contains("tried again in"))
            .then_some(())
    })
    .unwrap();
    assert!(!is_ready(&api));
    // An operator who loads it anew need not wait.
    api.accepted("POST", "/v2/repository/models/fashion/unload", b"").unwrap();
    api.accepted("POST", "/v2/repository/models/fashion/load", b"").unwrap();
    assert!(is_ready(&api));
    assert_eq!(ask_cloud(&api, &[0; 784], 2_000_000).status, 200);
}

#[test]
fn hostile_models_take_nothing_with_them() {
    let limits = [
        ("OUTRIGGER_CLOUD_RUNTIME_MEMORY_BUDGET_MB", "512".into()),
        ("OUTRIGGER_CLOUD_RUNTIME_LOAD_LIMIT_S", "5".into()),
        ("OUTRIGGER_CLOUD_RUNTIME_RUN_LIMIT_S", "3".into()),
    ];
    let world = World::start_in(&limits).unwrap();
    world
        .operator
        .run(&["model", "push", &outrigger_tests::world::fashion().to_string_lossy()])
        .unwrap();
    let api = api(&world);
    let server = world.cloud.process().unwrap().id();
    let cases = [
        ("deep", hostile::overflows_the_stack(30_000), "crashed (SIG"),
        ("wide", hostile::grows_while_loading(), "load"),
        ("fat", hostile::takes_all_memory(), "memory"),
        ("endless", hostile::never_ends(), "no answer for"),
    ];
    for (model, onnx, expected) in cases {
        let refused = publish(&world, model, onnx, &NEGATED).unwrap_err().to_string();
        println!("{model}: {refused}");
        let log = world.cloud.process().unwrap().output();
        assert!(refused.contains(expected), "{model}: {refused}; the server's log:\n{log}");
        assert_eq!(ask_cloud(&api, &[0; 784], 2_000_000).status, 200, "after {model}");
        assert_eq!(world.cloud.process().unwrap().id(), server);
    }

    // One that hangs for some requests only: those are late, all others are answered.
    publish(&world, "loops", hostile::loops_as_told(), &LOOPED).unwrap();
    assert_eq!(ask_three(&api, "loops", [1.0, 2.0, 3.0], 2_000_000).status, 200);
    let late = ask_three(&api, "loops", [1e18, 0.0, 0.0], 200_000);
    assert_eq!(late.status, 504, "{}", late.json());
    eventually("answers after a hang", PATIENCE, || {
        let answer = ask_three(&api, "loops", [1.0, 2.0, 3.0], 2_000_000);
        (answer.status == 200)
            .then(|| assert_eq!(answer.json()["outputs"][0]["data"], json!([7.0, 8.0, 9.0])))
    })
    .unwrap();
    let said = || world.cloud.process()?.output().contains("gave no answer for").then_some(());
    eventually("the end of the hung worker", PATIENCE, said).unwrap();
    assert_eq!(ask_three(&api, "loops", [1.0, 2.0, 3.0], 2_000_000).status, 200);
    assert_eq!(ask_cloud(&api, &[0; 784], 2_000_000).status, 200);
}

/// A short run is waited for by a thread that moves bytes for everybody: not when it does not end.
#[test]
fn a_model_that_stands_still_holds_up_nobody_else() {
    let world = World::start().unwrap();
    let api = api(&world);
    publish(&world, "still", hostile::harmless(), &NEGATED).unwrap();
    let worker = worker(&world);
    publish(&world, "lively", hostile::harmless(), &NEGATED).unwrap();
    let ask = |model| ask_three(&api, model, [1.0, 2.0, 3.0], 20_000_000).status;
    (0..20).for_each(|_| assert_eq!(ask("still"), 200)); // it learns that its runs are short
    workers::signal(worker, libc::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask("still"));
        let in_flight = "outrigger_cloud_requests_in_flight 1\n";
        eventually("its request to be under way", PATIENCE, || {
            let metrics = api.call("GET", "/metrics", &[], b"").ok()?;
            String::from_utf8_lossy(&metrics.body).contains(in_flight).then_some(())
        })
        .unwrap();
        assert_eq!(ask("lively"), 200);
        workers::signal(worker, libc::SIGCONT).unwrap();
        assert_eq!(waits.join().unwrap(), 200);
    });
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_loaded() {
    let world =
        World::start_in(&[("OUTRIGGER_CLOUD_RUNTIME_MEMORY_BUDGET_MB", "4".into())]).unwrap();
    let folder = outrigger_tests::world::fashion();
    let refused = world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("needs 5 MB at least") && refused.contains("is 4 MB"), "{refused}");
    assert!(!world.cloud.process().unwrap().output().contains("worker started"));
}

fn scrape(api: &Api) -> Scrape {
    let text = api.accepted("GET", "/metrics", b"").unwrap().body;
    Scrape::parse(std::str::from_utf8(&text).unwrap()).unwrap()
}

const OF_FASHION: [(&str, &str); 3] = [("model", "fashion"), ("version", "1"), ("device", "cpu")];

#[test]
fn a_killed_worker_is_missed_until_the_next_one_answers() {
    let (world, api) = ready_with_fashion();
    let up = |scrape: &Scrape| scrape.value("outrigger_cloud_worker_up", &OF_FASHION);
    let before = scrape(&api);
    assert_eq!(up(&before), Some(1.0));
    assert_eq!(before.value("outrigger_cloud_worker_starts_total", &[]), Some(1.0));
    let memory = before.value("outrigger_cloud_worker_memory_bytes", &OF_FASHION);
    assert!(memory.unwrap() > 4e6, "its weights at least");

    // Without its files no successor loads, so that there is time to look.
    let bundles = world.cloud.data_dir().join("bundles");
    let away = world.folder().join("away");
    let victim = worker(&world);
    std::fs::rename(&bundles, &away).unwrap();
    workers::signal(victim, libc::SIGKILL).unwrap();
    eventually("not being ready", PATIENCE, || (!is_ready(&api)).then_some(())).unwrap();
    assert_eq!(up(&scrape(&api)), Some(0.0));
    std::fs::rename(&away, &bundles).unwrap();
    until_ready(&api);
    assert_eq!(ask_cloud(&api, &[0; 784], 5_000_000).status, 200);
    let after = scrape(&api);
    assert_eq!(up(&after), Some(1.0));
    assert_eq!(after.value("outrigger_cloud_worker_ends_total", &[("how", "killed")]), Some(1.0));
    assert!(after.value("outrigger_cloud_worker_restarts_total", &[]).unwrap() >= 1.0);
}

#[test]
fn what_is_under_way_is_answered_although_everybody_is_told_to_end() {
    let mut world = World::start().unwrap();
    publish(&world, "loops", hostile::loops_as_told(), &LOOPED).unwrap();
    let api = api(&world);
    until_ready(&api);
    let began = std::time::Instant::now();
    assert_eq!(ask_three(&api, "loops", [1e5, 0.0, 0.0], 20_000_000).status, 200);
    // Long enough that it is under way when the signals come, whatever this machine is.
    let rounds = 1e5 * (1.0 / began.elapsed().as_secs_f32()).clamp(1.0, 100.0);
    std::thread::scope(|scope| {
        let under_way = scope.spawn(|| ask_three(&api, "loops", [rounds, 0.0, 0.0], 20_000_000));
        let stats = || api_stats(&world, "requests_in_flight").filter(|count| *count == 1);
        eventually("a request under way", PATIENCE, stats).unwrap();
        workers::signal(worker(&world), libc::SIGTERM).unwrap();
        assert_eq!(world.cloud.stop().unwrap(), Some(0));
        let answer = under_way.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json());
    });
}

fn api_stats(world: &World, name: &str) -> Option<u64> {
    let stats = api(world).accepted("GET", "/v1/stats", b"").ok()?.json();
    stats[name].as_u64()
}
