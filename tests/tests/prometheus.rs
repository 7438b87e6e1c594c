//! Debian's Prometheus scrapes a cloud whose devices answer on their own although they are not sure, takes the
//! alert rules that come with the cloud, and fires.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::debian;
use outrigger_tests::http::HttpClient;
use outrigger_tests::prometheus::{Scrape, judge};
use outrigger_tests::world::{Agent, AgentOptions, Process, World, eventually, fashion};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const DEGRADED: [(&str, &str); 3] =
    [("model", "fashion"), ("version", "1"), ("placement", "edge-degraded")];

fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud/packaging/alerts.yml")
}

/// Asks for what the device is not sure of, and what it may not ask the cloud.
fn ask(agent: &Agent) {
    let body = std::fs::read(fashion().join("example-doubtful.json")).unwrap();
    let answer = agent.client().unwrap().post("/v2/models/fashion/infer", &[], &body);
    assert_eq!(answer.unwrap().status, 200);
}

fn scrape(world: &World) -> (String, Scrape) {
    let auth = world.cloud.admin().unwrap();
    let headers = [("Authorization", auth.as_str())];
    let answer = world.cloud.client().unwrap().send("GET", "/metrics", &headers, &[]).unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    let scrape = Scrape::parse(&text).unwrap();
    (text, scrape)
}

/// Prometheus, with the rules that are shipped and a key of the role viewer.
fn start(program: &Path, world: &World) -> (Process, HttpClient) {
    let folder = world.folder().join("prometheus");
    std::fs::create_dir_all(&folder).unwrap();
    let key = folder.join("key");
    let create = ["key", "create", "--name", "prometheus", "--role", "viewer", "-o"];
    world.operator.run(&[&create[..], &[key.to_str().unwrap()]].concat()).unwrap();
    let config = json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [rules()],
        "scrape_configs": [{
            "job_name": "outrigger-cloud",
            "scheme": "https",
            "authorization": { "credentials_file": key },
            "tls_config": { "ca_file": world.cloud.ca_pem() },
            "static_configs": [{ "targets": [world.cloud.address()] }],
        }],
    });
    let path = folder.join("prometheus.yml");
    std::fs::write(&path, config.to_string()).unwrap(); // JSON is YAML
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", path.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg("--web.listen-address=127.0.0.1:0");
    let log = folder.join("log");
    let mut process = Process::start(command, &log).unwrap();
    let address = process.wait_for("Prometheus", || listening(&log)).unwrap();
    let client = HttpClient::connect(address).unwrap();
    (process, client)
}

fn listening(log: &Path) -> Option<SocketAddr> {
    let log = std::fs::read_to_string(log).ok()?;
    let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
    line.split("address=").nth(1)?.trim().parse().ok()
}

fn firing(client: &mut HttpClient, name: &str) -> Option<Value> {
    let answer = client.get("/api/v1/alerts").ok()?.json().ok()?;
    let alerts = answer["data"]["alerts"].as_array()?;
    let is = |alert: &&Value| alert["labels"]["alertname"] == name && alert["state"] == "firing";
    alerts.iter().find(is).cloned()
}

#[test]
fn the_shipped_alerts_fire_and_no_figure_moves_by_one_device() {
    let programs = ["prometheus", "promtool"].map(|name| debian::program("prometheus", name));
    let [Some(prometheus), Some(promtool)] = programs else { return };
    let checked = Command::new(&promtool).args(["check", "rules"]).arg(rules()).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cloud.toml");
    std::fs::write(&config, "[telemetry]\ncrowd_devices = 2\n").unwrap();
    let world = World::start_with(&["--config", config.to_str().unwrap()]).unwrap();
    world.ship_fashion().unwrap();
    let options = || AgentOptions {
        config: "[telemetry]\ncommit_s = 1\nsummary_s = 1\nsegment_s = 1\n\
                 [offload]\ncalls_per_day = 1\n"
            .to_owned(),
    };
    let [one, other] = ["one", "other"].map(|name| world.agent(name, &options()).unwrap());
    for agent in [&one, &other] {
        agent.wait_active("fashion", 1).unwrap();
    }
    let (_process, mut client) = start(&prometheus, &world);

    // What only one device has counted is hidden, however often it counts.
    ask(&one);
    let hidden = eventually("a hidden group", PATIENCE, || {
        let (text, scrape) = scrape(&world);
        let hidden = scrape.value("outrigger_cloud_fleet_groups", &[("state", "hidden")])?;
        (hidden > 0.0).then_some((text, scrape))
    });
    let (text, scraped) = hidden.unwrap();
    assert!(!text.contains("outrigger_cloud_fleet_requests_total{"), "{text}");
    judge(text.as_bytes()).unwrap();
    assert_eq!(scraped.value("outrigger_cloud_fleet_groups", &[("state", "shown")]), Some(0.0));

    // Both go on: the figure moves, and moves again, and the alert fires.
    let alert = eventually("the alert", PATIENCE, || {
        ask(&one);
        ask(&other);
        firing(&mut client, "OutriggerFleetDegraded")
    });
    assert_eq!(alert.unwrap()["labels"]["model"], "fashion");
    let total = scrape(&world).1.value("outrigger_cloud_fleet_requests_total", &DEGRADED);
    assert!(total >= Some(2.0), "{total:?}");
}
