//! Forty simulated devices and a real cloud: they enrol, take what is assigned, and are rolled over. A good version reaches all
//! of them, one that answers otherwise than the cloud stays with its canaries, and devices that vanish have failed at
//! their deadline.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use fleet_sim::behaviour::{Behaviour, Behaviours, Load};
use fleet_sim::{Fleet, Nature, Place};
use outrigger_tests::hostile;
use outrigger_tests::world::{Edge, Publisher, World, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

const DEVICES: usize = 40;
const MODEL: &str = "negates";
const PROBES: [([f32; 3], [f32; 3]); 1] = [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0])];
/// For devices to come, to fetch, or to be given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The devices at work with the first version, and their cloud, which looks every second.
struct Site {
    world: World,
    fleet: Fleet,
    _runtime: Runtime,
}

impl Site {
    /// The versions after the first behave so.
    fn start(versions: &[(u64, Behaviour)]) -> Self {
        let look = [("OUTRIGGER_CLOUD_ROLLOUTS_LOOK_S", "1".into())];
        let world = World::start_in(&look).unwrap();
        let token = world.fleet_token(DEVICES, &[]).unwrap();
        let runtime = Runtime::new().unwrap();
        let place = Place::at(world.cloud.address().parse().unwrap());
        let mut fleet = runtime.block_on(Fleet::enrol(place, &token, DEVICES)).unwrap();
        let mut behaviours = Behaviours::default();
        behaviours.set(1, Behaviour::quick());
        versions.iter().for_each(|(version, new)| behaviours.set(*version, new.clone()));
        // So busy that a version is compared with the one before it in seconds.
        let (per_min, checked) = (6000.0, 0.2);
        let behaviours = Arc::new(behaviours);
        fleet.set_nature(Nature { behaviours, per_min, checked, ..Nature::default() });
        {
            let _inside = runtime.enter();
            fleet.start(DEVICES);
        }
        let site = Self { world, fleet, _runtime: runtime };
        site.publish(1);
        site.world.operator.run(&["model", "assign", "negates@1", "--all"]).unwrap();
        site.have(1, DEVICES);
        site
    }

    fn publish(&self, version: u64) {
        let publisher = Publisher::with_keys_of(&self.world.operator).unwrap();
        let onnx = hostile::harmless();
        publisher.publish(&Edge { model: MODEL, version, onnx, probes: &PROBES }).unwrap();
    }

    fn json(&self, args: &[&str]) -> Value {
        self.world.operator.json(args).unwrap()
    }

    /// Waits until so many devices say that they answer with this version.
    fn have(&self, version: u64, devices: usize) {
        let answers = |device: &Value| device["reported"][0]["active_version"] == version;
        eventually("devices with the version", PATIENCE, || {
            let all = self.json(&["device", "list"]);
            let there = all.as_array().unwrap().iter().filter(|device| answers(device)).count();
            (there == devices).then_some(())
        })
        .unwrap_or_else(|e| panic!("{e:#}: {:#}", self.json(&["device", "list"])[0]));
    }

    /// Begins a roll-out to all; its id.
    fn begin(&self, version: u64, more: &[&str]) -> String {
        self.publish(version);
        let model = format!("{MODEL}@{version}");
        let asked = ["rollout", "start", &model, "--all", "--approve-from", "100"];
        let rest = ["--requests", "100", "--rate", "6000"];
        let begun = self.json(&[&asked[..], &rest, more].concat());
        begun["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a roll-out stands there; how it stands then.
    fn until(&self, id: &str, phase: &str) -> Value {
        let status = || self.json(&["rollout", "status", id]);
        let there = eventually(phase, PATIENCE, || {
            Some(status()).filter(|status| status["phase"] == phase)
        });
        there.unwrap_or_else(|e| panic!("{e:#}: {:#}", status()))
    }
}

#[test]
fn a_good_version_reaches_the_fleet_and_one_that_answers_otherwise_stays_with_its_canaries() {
    let wrong = Behaviour { disagreement: 0.9, ..Behaviour::quick() };
    let site = Site::start(&[(2, Behaviour::quick()), (3, wrong)]);
    let good = site.begin(2, &["--stages", "4:1s,all:1s"]);
    let end = site.until(&good, "done");
    assert_eq!(end["progress"]["succeeded"], json!(DEVICES), "{end:#}");
    site.have(2, DEVICES);

    let bad = site.begin(3, &["--stages", "4:3s,all:1s"]);
    let end = site.until(&bad, "rolled-back");
    assert!(end["reason"].as_str().unwrap().starts_with("disagreement: +"), "{end:#}");
    let Value::Object(progress) = &end["progress"] else { panic!("{end:#}") };
    assert_eq!((&progress["told"], &progress["returned"]), (&json!(4), &json!(4)), "{end:#}");
    site.have(2, DEVICES);
    assert_eq!(site.fleet.counts().connections, DEVICES as u64, "nobody had to connect again");
}

#[test]
fn devices_that_vanish_have_failed_at_their_deadline() {
    let gone = Behaviour { load: Load::Vanishes, ..Behaviour::quick() };
    let site = Site::start(&[(2, gone)]);
    let id = site.begin(2, &["--stages", "4:1s,all:1s", "--deadline", "5s"]);
    let paused = site.until(&id, "paused");
    let reason = paused["reason"].as_str().unwrap();
    assert!(reason.contains("of 4 devices were silent past their deadline"), "{paused:#}");
    assert!(reason.ends_with("one of them: silent since it was told"), "{paused:#}");
    assert_eq!(paused["progress"]["told"], 4, "{paused:#}");
    site.world.operator.run(&["rollout", "abort", &id]).unwrap();
    let end = site.until(&id, "rolled-back");
    assert_eq!(end["progress"]["failed"], 4, "they go back when they connect: {end:#}");
    site.have(1, DEVICES); // the four had it when they were last heard of
    assert_eq!(site.fleet.counts().connected, DEVICES as u64 - 4);
}
