//! Programs that nobody here wrote call the cloud, over TLS and with keys.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use outrigger_tests::world::{World, eventually, fashion};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A cloud with the demo model, and a folder of keys: one of each kind.
struct Served {
    world: World,
    keys: PathBuf,
}

impl Served {
    fn start() -> Self {
        let world = World::start().unwrap();
        world.ship_fashion().unwrap();
        let keys = world.folder().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let served = Self { world, keys };
        served.key("client", &["--role", "client", "--model", "fash*"]);
        served.key("operator", &["--role", "operator"]);
        served.key("other", &["--role", "client", "--model", "other"]);
        served.key("expired", &["--role", "client", "--expires", "1s"]);
        let revoked = served.key("revoked", &["--role", "client"]);
        served.world.operator.run(&["key", "revoke", &revoked]).unwrap();
        let expired = |key: &Value| key["name"] == "expired" && key["state"] == "expired";
        let listed = || {
            let keys = served.world.operator.json(&["key", "list"]).ok()?;
            keys.as_array()?.iter().any(expired).then_some(())
        };
        eventually("the key to expire", PATIENCE, listed).unwrap();
        served
    }

    /// Makes a key with the operator's command; its id.
    fn key(&self, name: &str, args: &[&str]) -> String {
        let file = self.keys.join(name).to_string_lossy().into_owned();
        let create = [&["key", "create", "--name", name, "-o", &file], args].concat();
        let made = self.world.operator.json(&create).unwrap();
        assert!(made["key"].is_null(), "a key in a file is not printed too");
        made["id"].as_str().unwrap().to_owned()
    }

    fn check(&self, environment: &Environment, script: &str) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let address = self.world.cloud.address().replace("127.0.0.1", "localhost");
        let arguments = [
            address,
            text(self.world.cloud.data_dir().join("ca/ca.pem")),
            text(self.keys.clone()),
            text(fashion().join("cloud.onnx")),
            text(fashion().join("data/test-images.u8")),
        ];
        print!("{}", environment.run(script, &arguments.each_ref().map(String::as_str)).unwrap());
    }
}

#[test]
fn tritonclient_and_reflection() {
    let packages =
        ["tritonclient[http,grpc]==2.73.0", "grpcio-reflection", "onnxruntime==1.31.1", "numpy"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    let served = Served::start();
    served.check(&environment, "cloud_clients.py");
    let usage = served.world.operator.json(&["usage", "--by", "key"]).unwrap();
    let busiest = &usage[0];
    assert!(busiest["requests"].as_u64().unwrap() >= 30, "{usage}");
    assert!(busiest["compute_us"].as_u64().unwrap() > 0, "{usage}");
    let table = served.world.operator.run(&["usage"]).unwrap();
    assert!(table.contains("default"), "{table}");
}

#[test]
fn kserve_clients() {
    let packages = ["kserve==0.21.0", "onnxruntime==1.31.1", "numpy"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    Served::start().check(&environment, "cloud_kserve.py");
}
