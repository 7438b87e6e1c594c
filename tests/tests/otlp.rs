//! Traces, figures and lines of the log of agent and cloud, over both protocols of OTLP; received by
//! OpenTelemetry's own services and read by its own messages.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::collector::{Collector, Span};
use outrigger_tests::world::{AgentOptions, World, fashion};
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SERVICES: [&str; 2] = ["outrigger-agent", "outrigger-cloud"];

fn check(protocol: &str, collector: &Collector, folder: &std::path::Path) {
    let headers = folder.join("headers");
    std::fs::write(&headers, "x-collector-key: s3cret\n").unwrap();
    let config = |endpoint: &str| {
        format!(
            "[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\ninterval_s = 1\n\
             headers_file = {headers:?}\n"
        )
    };
    // The device in the clear, the cloud over TLS, by a certificate that nobody else trusts.
    let (endpoint, ca_file) = collector.tls_endpoint();
    let of_cloud = folder.join("cloud.toml");
    std::fs::write(&of_cloud, config(endpoint) + &format!("ca_file = {ca_file:?}\n")).unwrap();
    let mut world = World::start_with(&["--config", of_cloud.to_str().unwrap()]).unwrap();
    world.ship_fashion().unwrap();
    let config = config(collector.endpoint());
    let agent = world.agent("device", &AgentOptions { config }).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let doubtful = std::fs::read(fashion().join("example-doubtful.json")).unwrap();
    let mut client = agent.client().unwrap();
    let answer =
        client.post("/v2/models/fashion/infer", &[("traceparent", PARENT)], &doubtful).unwrap();
    assert_eq!(answer.status, 200);

    // One trace over both, whose link is the deferral.
    let spans = collector.trace(TRACE, 8).unwrap();
    let one = |service: &str, kind: &str| -> Span {
        let is = |span: &&Span| span.text("service") == service && span.text("kind") == kind;
        spans.iter().find(is).unwrap_or_else(|| panic!("{service} {kind}: {spans:#?}")).clone()
    };
    let asked = one("outrigger-agent", "server");
    let (deferral, served) = (one("outrigger-agent", "client"), one("outrigger-cloud", "server"));
    assert_eq!(asked.text("parent"), "b7ad6b7169203331");
    assert!(deferral.is_within(&asked) && served.is_within(&deferral), "{spans:#?}");
    assert!(served.has_remote_parent() && !deferral.has_remote_parent());

    check_metrics(collector);
    let device = agent.status().unwrap()["device"].as_str().unwrap().to_owned();
    check_logs(collector, &device);
    agent.stop().unwrap();
    assert_eq!(world.cloud.stop().unwrap(), Some(0));
    check_last_words(collector);
    assert_eq!(collector.headers("x-collector-key"), [Some("s3cret".to_owned())].into());
}

/// The value of a series in the last report that has it.
fn value(told: &[Value], name: &str, labels: &Value) -> Option<f64> {
    let is = |point: &&Value| point["name"] == name && point["attributes"] == *labels;
    told.iter().rev().find(is)?["value"].as_f64()
}

fn check_metrics(collector: &Collector) {
    let cloud = json!({ "placement": "cloud" });
    let answered = json!({ "model": "fashion", "result": "answered" });
    let told = collector.wait("metrics", |told| {
        let answers = value(&told, "outrigger_answers_total", &cloud)?;
        let ended = value(&told, "outrigger_cloud_requests_ended_total", &answered)?;
        (answers > 0.0 && ended > 0.0).then_some(told)
    });
    let told = told.unwrap();
    assert_eq!(value(&told, "outrigger_answers_total", &cloud), Some(1.0));
    let of = |name: &str| told.iter().find(|point| point["name"] == name).unwrap();
    assert_eq!(of("outrigger_answers_total")["kind"], "sum");
    assert_eq!(of("outrigger_connected")["kind"], "gauge");
    assert_eq!(of("process_resident_memory_bytes")["unit"], "By");
    let seconds = of("outrigger_cloud_request_seconds");
    assert_eq!((&seconds["kind"], &seconds["unit"]), (&json!("histogram"), &json!("s")));
    for service in SERVICES {
        let point = told.iter().find(|point| point["service"] == service).unwrap();
        for attribute in ["service.version", "service.instance.id", "host.arch", "os.type"] {
            assert!(point["resource"][attribute].is_string(), "{service} {attribute}");
        }
    }
}

fn check_logs(collector: &Collector, device: &str) {
    let lines = collector.wait("logs", |told| {
        let said = |service: &&str| told.iter().any(|line| line["service"] == **service);
        SERVICES.iter().all(said).then_some(told)
    });
    let lines = lines.unwrap();
    let of_agent = lines.iter().find(|line| line["service"] == "outrigger-agent").unwrap();
    assert_eq!(of_agent["resource"]["service.instance.id"], device);
    for line in &lines {
        assert!(["info", "warn", "error"].contains(&line["severity"].as_str().unwrap()), "{line}");
        assert!(line["attributes"]["outrigger.target"].is_string(), "{line}");
        assert_ne!(line["text"], "", "{line}");
    }
}

/// What was said last arrived too.
fn check_last_words(collector: &Collector) {
    let lines = collector.told("logs").unwrap();
    let is = |line: &Value| {
        line["service"] == "outrigger-cloud" && line["text"].as_str().unwrap().contains("stopping")
    };
    assert!(lines.iter().any(is), "{lines:#?}");
}

#[test]
fn all_three_signals_arrive_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let Some(collector) = Collector::start(folder.path()).unwrap() else { return };
    check("http", &collector, folder.path());
}

#[test]
fn all_three_signals_arrive_over_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let Some(collector) = Collector::start_grpc(folder.path()).unwrap() else { return };
    check("grpc", &collector, folder.path());
}
