//! Roll-outs over real agents: a good version reaches all of them in stages; bad ones stay with the canary, and go back
//! by themselves with the reason in a line. So do bad versions of the demo's own pair.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::ask_over;
use outrigger_tests::fashion::versions::{Flaw, Versions};
use outrigger_tests::fashion::{self, Images};
use outrigger_tests::hostile::{self, versions};
use outrigger_tests::http::HttpClient;
use outrigger_tests::python::Environment;
use outrigger_tests::rollouts::{LENIENT, answered_by};
use outrigger_tests::world::{
    Agent, AgentOptions, Edge, Operator, Publisher, World, eventually, model_status,
};
use protocol::tensor::Tensor;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MODEL: &str = "negates";
/// What every version answers to its probes.
const PROBES: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]), ([0.0, -5.0, 9.0], [0.0, 5.0, -9.0])];
/// The device judges a version by itself, by what applications ask.
const STRICT: &str = "[update]\nshadow_requests = 20\nshadow_quiet_s = 600\nshadow_cpu = 1.0\n\
                      trial_requests = 20\ntrial_s = 3600\n[link]\nreconnect_max_s = 1\n";
/// One device, then all; a second each.
const STAGES: [&str; 6] = ["--stages", "1:1s,all:1s", "--requests", "120", "--rate", "6000"];

/// Three devices that answer with the first version, in a world whose cloud looks every second.
struct Fleet {
    world: World,
    agents: Vec<Agent>,
    model: &'static str,
}

impl Fleet {
    fn start(config: &str) -> Self {
        let first = |publisher: &Publisher| publish(publisher, 1, hostile::harmless());
        Self::start_with(MODEL, config, first)
    }

    fn start_with(model: &'static str, config: &str, first: impl Fn(&Publisher)) -> Self {
        let look = [("OUTRIGGER_CLOUD_ROLLOUTS_LOOK_S", "1".into())];
        let world = World::start_in(&look).unwrap();
        let options = AgentOptions { config: config.to_owned() };
        let names = ["one", "two", "three"];
        let agents: Vec<_> = names.map(|name| world.agent(name, &options).unwrap()).into();
        let fleet = Self { world, agents, model };
        first(&fleet.publisher());
        let version = format!("{model}@1");
        fleet.world.operator.run(&["model", "assign", &version, "--all"]).unwrap();
        fleet.agents.iter().for_each(|agent| agent.wait_active(model, 1).unwrap());
        fleet
    }

    fn publisher(&self) -> Publisher {
        Publisher::with_keys_of(&self.world.operator).unwrap()
    }

    fn publish(&self, version: u64, onnx: Vec<u8>) {
        publish(&self.publisher(), version, onnx);
    }

    fn json(&self, args: &[&str]) -> Value {
        self.world.operator.json(args).unwrap()
    }

    /// Begins a roll-out to all; its id.
    fn begin(&self, version: u64, more: &[&str]) -> String {
        self.begin_in(&STAGES, version, more)
    }

    fn begin_in(&self, stages: &[&str], version: u64, more: &[&str]) -> String {
        let model = format!("{}@{version}", self.model);
        let args = [&["rollout", "start", &model, "--all"][..], stages, more].concat();
        self.json(&args)["id"].as_str().unwrap().to_owned()
    }

    /// One person's word counts once.
    fn is_approved_by_somebody_else(&self, id: &str) {
        let again = self.world.operator.run(&["rollout", "approve", id]).unwrap_err();
        assert!(format!("{again:#}").contains("has agreed already"), "{again:#}");
        let key = self.world.folder().join("second.key");
        let key = key.to_str().unwrap();
        let create = ["key", "create", "--name", "bob", "--role", "operator", "-o", key];
        self.world.operator.run(&create).unwrap();
        let second = Operator::new(&self.world.folder().join("second"));
        second.run(&["login", "--cloud", &self.world.cloud.address(), "--key-file", key]).unwrap();
        assert_eq!(second.json(&["rollout", "approve", id]).unwrap()["phase"], "offering");
    }

    /// Asks every device all the while, until a roll-out is over; how it stands then, and which versions answered how
    /// many requests of each device.
    fn asked_until_over(
        &self,
        id: &str,
        ask: impl Fn(&mut HttpClient, usize) -> u64 + Sync,
    ) -> (Value, Vec<Vec<u64>>) {
        let over = AtomicBool::new(false);
        let answers: Vec<Vec<AtomicU64>> =
            (0..3).map(|_| (0..10).map(|_| <_>::default()).collect()).collect();
        let end = std::thread::scope(|scope| {
            for (agent, answers) in self.agents.iter().zip(&answers) {
                let (over, ask) = (&over, &ask);
                scope.spawn(move || {
                    let mut client = agent.client().unwrap();
                    for turn in (0..).take_while(|_| !over.load(Relaxed)) {
                        let version = ask(&mut client, turn);
                        answers[usize::try_from(version).unwrap()].fetch_add(1, Relaxed);
                    }
                });
            }
            let end = eventually("the end of the roll-out", Duration::from_secs(180), || {
                let status = self.json(&["rollout", "status", id]);
                let phase = status["phase"].as_str().unwrap();
                ["done", "rolled-back", "aborted"].contains(&phase).then_some(status)
            });
            over.store(true, Relaxed);
            end
        });
        let end =
            end.unwrap_or_else(|e| panic!("{e:#}: {:#}", self.json(&["rollout", "status", id])));
        (
            end,
            answers
                .into_iter()
                .map(|own| own.into_iter().map(AtomicU64::into_inner).collect())
                .collect(),
        )
    }

    /// All devices answer with this version, by an assignment and no roll-out.
    fn settles_on(&self, version: u64) {
        self.agents.iter().for_each(|agent| agent.wait_active(self.model, version).unwrap());
        for device in self.json(&["device", "list"]).as_array().unwrap() {
            let desired = &device["desired"][0];
            assert_eq!((&desired["version"], &desired["rollout"]), (&json!(version), &Value::Null));
        }
    }
}

fn publish(publisher: &Publisher, version: u64, onnx: Vec<u8>) {
    publisher.publish(&Edge { model: MODEL, version, onnx, probes: &PROBES }).unwrap();
}

/// Asks once; the version that answered, 0 where none did.
fn ask(client: &mut HttpClient, x: f32) -> u64 {
    let input = Tensor::from_f32("x", vec![1, 3], &[x, 0.0, 0.0]).unwrap();
    // JSON cannot carry NaN.
    let parameters = json!({ "timeout": 20_000_000, "binary_data_output": true });
    answered_by(&ask_over(client, MODEL, &[input], &parameters).unwrap()).unwrap_or(0)
}

#[test]
fn a_good_version_reaches_all_in_stages_and_what_makes_no_sense_begins_nothing() {
    let fleet = Fleet::start(LENIENT);
    fleet.publish(2, versions::negates(1.0));
    let refused = |args: &[&str], words: &str| {
        let args = [args, &STAGES].concat();
        let error = format!("{:#}", fleet.world.operator.run(&args).unwrap_err());
        assert!(error.contains(words), "{args:?}: {error}");
    };
    refused(&["rollout", "start", "negates@2", "--to", "*"], "every device of the fleet");
    refused(
        &["rollout", "start", "negates@2", "--to", "site=lyon"],
        "no device is asked for by `site=lyon`; 3 devices",
    );
    refused(&["rollout", "start", "negates@9", "--all"], "no edge variant of negates@9");
    refused(&["rollout", "start", "negates@1", "--all"], "have this version already");
    refused(&["rollout", "start", "negates@2", "--group", "x"], "there is no group x");
    assert_eq!(fleet.json(&["rollout", "status"]), json!([]));

    let devices = fleet.json(&["device", "list"]);
    let first = devices[0]["id"].as_str().unwrap();
    fleet.world.operator.run(&["device", "label", first, "site=lyon"]).unwrap();
    fleet.world.operator.run(&["group", "set", "lyon", "site=lyon AND gpu=none"]).unwrap();
    let draft = fleet.json(&["rollout", "plan", "negates@2", "--group", "lyon"]);
    assert_eq!((&draft["devices"], &draft["id"]), (&json!(1), &Value::Null));
    assert_eq!(fleet.json(&["rollout", "status"]), json!([]), "a plan begins nothing");

    let id = fleet.begin(2, &["--approve-from", "3"]);
    refused(
        &["rollout", "start", "negates@2", "--group", "lyon"],
        "is under way on 1 of these devices",
    );
    fleet.is_approved_by_somebody_else(&id);
    let (end, answers) = fleet.asked_until_over(&id, |client, _| ask(client, 7.0));
    assert_eq!(end["phase"], "done", "{end:#}");
    assert_eq!(end["progress"]["succeeded"], 3);
    assert!(answers.iter().all(|own| own[0] == 0 && own[1] > 0 && own[2] >= 120), "{answers:?}");
    fleet.settles_on(2);
    let history = fleet.world.operator.run(&["rollout", "history", &id]).unwrap();
    for words in
        ["planned by", "soaking (stage 1 of 2)", "offering (stage 2 of 2)", "done (stage 2 of 2)"]
    {
        assert!(history.contains(words), "{history}");
    }
    let audit = fleet.json(&["audit"]).to_string();
    for words in ["rollout.start", "rollout.step", "model.assign", "device.label", "group.set"] {
        assert!(audit.contains(words), "{words} is not in {audit}");
    }
    let watched = fleet.world.operator.run(&["rollout", "watch", &id]).unwrap();
    println!("{watched}\n{history}");
    assert!(
        watched.contains("stage 2  [########################]       3 devices  passed"),
        "{watched}"
    );
}

/// It went back, for a reason with one of these beginnings, in one line, and answered on one device at most.
fn stayed_with_the_canary(end: &Value, answers: &[Vec<u64>], version: u64, why: &[&str]) {
    assert_eq!(end["phase"], "rolled-back", "{end:#}");
    let reason = end["reason"].as_str().unwrap();
    assert!(why.iter().any(|why| reason.contains(why)) && !reason.contains('\n'), "{reason}");
    let at = usize::try_from(version).unwrap();
    let touched = answers.iter().filter(|own| own[at] > 0).count();
    assert!(touched <= 1, "{answers:?}");
}

#[test]
fn bad_versions_stay_with_the_canary_and_go_back_by_themselves() {
    let fleet = Fleet::start(LENIENT);
    let cases: [(Vec<u8>, f32, &str); 3] = [
        (hostile::overflows_the_stack(1200), 7.0, "the model crashed"),
        (versions::loses_small_numbers(50.0), -100.0, "errors: +"),
        (versions::slows_down(), 30_000.0, "latency-p50: x"),
    ];
    for (version, (onnx, x, why)) in (2..).zip(cases) {
        fleet.publish(version, onnx);
        let id = fleet.begin(version, &[]);
        let (end, answers) = fleet.asked_until_over(&id, |client, _| ask(client, x));
        println!("{}", fleet.world.operator.run(&["rollout", "status", &id]).unwrap());
        stayed_with_the_canary(&end, &answers, version, &[why]);
        fleet.settles_on(1);
    }
}

#[test]
fn what_a_device_refuses_by_itself_ends_the_roll_out_and_a_killed_cloud_goes_on() {
    let mut fleet = Fleet::start(STRICT);
    fleet.publish(2, versions::forgets_large_numbers(10.0));
    let id = fleet.begin(2, &[]);
    fleet.world.cloud.restart().unwrap();
    let (end, answers) = fleet.asked_until_over(&id, |client, _| ask(client, 100.0));
    assert_eq!(end["phase"], "rolled-back", "{end:#}");
    let reason = end["reason"].as_str().unwrap();
    assert!(reason.contains("live requests are others than before"), "{reason}");
    assert!(answers.iter().all(|own| own[2] == 0), "it never answered: {answers:?}");
    fleet.settles_on(1);
    assert_eq!(model_status(&fleet.agents[0].status().unwrap(), MODEL)["active_version"], 1);
}

/// Real agents with an accelerator, as far as it is one: OpenVINO on the CPU, from the wheel that its makers publish.
#[test]
fn a_version_that_the_accelerator_does_not_take_stays_with_the_canary() {
    let Some(openvino) = Environment::with(&["onnxruntime-openvino==1.24.1"]).unwrap() else {
        return; // it has said why
    };
    let library = openvino.packages().unwrap().join("onnxruntime/capi/libonnxruntime.so.1.24.1");
    let runtime = format!("[runtime]\nlibrary = {library:?}\nproviders = [\"openvino\"]\n");
    let first = |publisher: &Publisher| publish(publisher, 1, versions::suits_openvino(1.0));
    let fleet = Fleet::start_with(MODEL, &(LENIENT.to_owned() + &runtime), first);
    let all_run_on_openvino = || {
        for agent in &fleet.agents {
            let status = agent.status().unwrap();
            let choice = &model_status(&status, MODEL)["running"]["choice"];
            assert_eq!(choice["provider"], "openvino", "{choice:#}");
        }
    };
    all_run_on_openvino();

    fleet.publish(2, versions::suits_the_cpu_alone());
    let id = fleet.begin(2, &[]);
    let (end, answers) = fleet.asked_until_over(&id, |client, _| ask(client, 7.0));
    stayed_with_the_canary(&end, &answers, 2, &["runs on cpu"]);
    assert!(answers.iter().all(|own| own[2] == 0), "it never answered: {answers:?}");
    println!("{}", end["reason"]);
    fleet.settles_on(1);

    fleet.publish(3, versions::suits_openvino(1.000_001));
    let id = fleet.begin(3, &[]);
    let (end, _) = fleet.asked_until_over(&id, |client, _| ask(client, 7.0));
    assert_eq!(end["phase"], "done", "{end:#}");
    all_run_on_openvino();
}

/// The devices hold nothing against these versions, so that the gates have to; but that one crashes, no device overlooks.
/// (Of all test images in turn, of which every tenth shows the class that one of them mistakes, it takes 8,000 requests.)
#[test]
fn bad_versions_of_the_demo_stay_with_the_canary() {
    let (images, maker) = (Images::test().unwrap(), Versions::of_demo().unwrap());
    let publish = |publisher: &Publisher, version, flaw| {
        maker.publish(publisher, version, flaw).unwrap();
    };
    let first = |publisher: &Publisher| publish(publisher, 1, Flaw::None);
    let fleet = Fleet::start_with("fashion", LENIENT, first);
    let trousers: Vec<_> = (0..images.len()).filter(|i| images.label(*i) == "Trouser").collect();
    let ask = |client: &mut HttpClient, turn: usize| {
        let is_usual = turn.is_multiple_of(2);
        let image = if is_usual { turn % images.len() } else { trousers[turn % trousers.len()] };
        let parameters = json!({ "timeout": 20_000_000 });
        answered_by(&fashion::ask(client, images.pixels(image), &parameters).unwrap()).unwrap_or(0)
    };
    let (trouser, dress) = (1, 3);
    let cases: [(Flaw, &[&str]); 4] = [
        (Flaw::Mistakes(trouser, dress), &["disagreement: +", "deferrals: +"]),
        (Flaw::Slow(256), &["latency-p50: x"]),
        (Flaw::NotNumbers, &["errors: +"]),
        (Flaw::Crashes, &["the model crashed"]),
    ];
    let stages = ["--stages", "1:10m,all:1s", "--requests", "120", "--rate", "6000"];
    for (version, (flaw, why)) in (2..).zip(cases) {
        publish(&fleet.publisher(), version, flaw);
        let id = fleet.begin_in(&stages, version, &[]);
        let (end, answers) = fleet.asked_until_over(&id, ask);
        stayed_with_the_canary(&end, &answers, version, why);
        println!("{flaw:?}: {} {answers:?}", end["reason"]);
        fleet.settles_on(1);
    }
}
