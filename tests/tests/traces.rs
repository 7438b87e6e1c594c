//! Traces: one request is one trace over agent and cloud, whichever door it came through; read by
//! OpenTelemetry's own library.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::collector::{Collector, Span};
use outrigger_tests::grpc::{GrpcClient, framed, request};
use outrigger_tests::http::HttpResponse;
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::world::{Agent, AgentOptions, World, eventually, fashion};
use prost::Message;
use protocol::tensor::{DataType, Tensor, TensorMeta};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const INFER: &str = "/v2/models/fashion/infer";
const ROUTE: &str = "POST /v2/models/{model}/infer";

/// An image that the edge model is not sure of.
fn doubtful() -> Vec<u8> {
    std::fs::read(fashion().join("example-doubtful.json")).unwrap()
}

fn doubtful_tensor() -> Tensor {
    let body: Value = serde_json::from_slice(&doubtful()).unwrap();
    let pixels = body["inputs"][0]["data"].as_array().unwrap().iter();
    let pixels: Vec<u8> = pixels.map(|p| u8::try_from(p.as_u64().unwrap()).unwrap()).collect();
    let meta = TensorMeta::new("image", DataType::Uint8, vec![1, 28, 28]).unwrap();
    Tensor::new(meta, pixels.into()).unwrap()
}

/// The id of the `nth` trace, and a parent in it; `flags` as two digits.
fn parent(nth: u32, flags: &str) -> (String, String) {
    let trace = format!("{nth:032x}");
    (trace.clone(), format!("00-{trace}-00f067aa0ba902b7-{flags}"))
}

fn named<'s>(spans: &'s [Span], service: &str, name: &str) -> &'s Span {
    let mut found = spans.iter().filter(|s| s.text("service") == service && s.text("name") == name);
    let span = found.next().unwrap_or_else(|| panic!("{service} has no {name}: {spans:#?}"));
    assert!(found.next().is_none(), "{service} has {name} twice: {spans:#?}");
    span
}

/// What eight spans say of a request that the edge model was not sure of.
fn check_deferred(spans: &[Span], door: &str) {
    const AGENT: &str = "outrigger-agent";
    const CLOUD: &str = "outrigger-cloud";
    assert_eq!(spans.len(), 8, "{spans:#?}");
    let asked = named(spans, AGENT, door);
    assert_eq!((asked.text("kind"), asked.text("parent")), ("server", "00f067aa0ba902b7"));
    assert!(asked.has_remote_parent());
    assert_eq!(asked.attribute("outrigger.placement"), "cloud");
    assert_eq!(asked.attribute("outrigger.reason"), "deferred");
    assert_eq!(asked.attribute("outrigger.model.name"), "fashion");
    assert_eq!(asked.attribute("outrigger.model.version"), 1);
    let deferral = named(spans, AGENT, "outrigger/infer");
    assert_eq!((deferral.text("kind"), deferral.has_remote_parent()), ("client", false));
    assert_eq!(deferral.attribute("outrigger.attempt"), 1);
    assert_eq!(deferral.attribute("outrigger.node"), "control");
    let served = named(spans, CLOUD, "outrigger/infer");
    assert_eq!((served.text("kind"), served.has_remote_parent()), ("server", true));
    assert_eq!(served.attribute("network.transport"), "quic");
    for part in ["queue", "inference"] {
        assert!(named(spans, AGENT, part).is_within(asked), "{part}: {spans:#?}");
    }
    assert!(deferral.is_within(asked) && served.is_within(deferral), "{spans:#?}");
    for part in ["receive", "queue", "inference"] {
        assert!(named(spans, CLOUD, part).is_within(served), "{part}: {spans:#?}");
    }
    let run = named(spans, CLOUD, "inference");
    assert_eq!(run.attribute("outrigger.batch.requests"), 1);
    let whole = |span: &Span| span.text("status") == "unset" && span.text("state") == "team=a";
    assert!(spans.iter().all(whole), "{spans:#?}");
}

/// One request over HTTP, of which the body is announced to have so many bytes.
fn ask_raw(mut socket: impl Read + Write, parent: &str, body: &[u8], len: usize) -> String {
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len}\r\n\
         traceparent: {parent}\r\ntracestate: team=a\r\n\r\n",
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

struct Traced {
    collector: Collector,
    world: World,
    agent: Agent,
}

/// A fleet that sends its traces; nothing where OpenTelemetry's library cannot be got.
fn traced() -> Option<Traced> {
    let folder = tempfile::tempdir().unwrap().keep();
    let collector = Collector::start(&folder).unwrap()?;
    let endpoint = collector.endpoint().to_owned();
    let world = World::start_with(&["--otlp", &endpoint, "--trace-sample", "1"]).unwrap();
    world.ship_fashion().unwrap();
    let headers = folder.join("headers");
    std::fs::write(&headers, "x-collector-key: s3cret\n").unwrap();
    let config = format!(
        "[otlp]\nendpoint = \"{endpoint}/v1/traces\"\nheaders_file = {headers:?}\n\
         [local]\nbody_s = 1\nrequest_memory_mb = 1\n[offload]\ncalls_per_check = 0"
    );
    let agent = world.agent("device", &AgentOptions { config }).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    Some(Traced { collector, world, agent })
}

impl Traced {
    fn ask(&self, headers: &[(&str, &str)]) -> HttpResponse {
        self.agent.client().unwrap().post(INFER, headers, &doubtful()).unwrap()
    }
}

#[test]
fn a_deferred_request_is_one_trace_through_every_door() {
    let Some(mut traced) = traced() else { return };
    let (over_http, parent_1) = parent(1, "01");
    let headers = [("traceparent", parent_1.as_str()), ("tracestate", "team=a")];
    assert_eq!(traced.ask(&headers).status, 200);
    check_deferred(&traced.collector.trace(&over_http, 8).unwrap(), ROUTE);

    let (over_grpc, parent_2) = parent(2, "01");
    let client = GrpcClient::connect(traced.agent.grpc_address()).unwrap();
    let message = framed(&request("fashion", &[doubtful_tensor()]).encode_to_vec());
    let headers = [("traceparent", parent_2.as_str()), ("tracestate", "team=a")];
    assert_eq!(client.send(&headers, message, true).unwrap().status, 0);
    let spans = traced.collector.trace(&over_grpc, 8).unwrap();
    check_deferred(&spans, "inference.GRPCInferenceService/ModelInfer");

    let (direct, parent_3) = parent(3, "01");
    let admin = traced.world.cloud.admin().unwrap();
    let mut client = traced.world.cloud.client().unwrap();
    let key = ("authorization", admin.as_str());
    let headers = [key, ("traceparent", parent_3.as_str())];
    assert_eq!(client.post(INFER, &headers, &doubtful()).unwrap().status, 200);
    let spans = traced.collector.trace(&direct, 4).unwrap();
    let served = named(&spans, "outrigger-cloud", ROUTE);
    assert_eq!(served.attribute("http.response.status_code"), 200);
    for part in ["receive", "queue", "inference"] {
        assert!(named(&spans, "outrigger-cloud", part).is_within(served), "{part}: {spans:#?}");
    }

    // The last one waits for others when both are told to end: nothing is lost.
    let (over_unix, parent_4) = parent(4, "01");
    let socket = UnixStream::connect(traced.agent.socket()).unwrap();
    let answer = ask_raw(socket, &parent_4, &doubtful(), doubtful().len());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    traced.agent.stop().unwrap();
    assert_eq!(traced.world.cloud.stop().unwrap(), Some(0));
    let mut spans = traced.collector.spans().unwrap();
    spans.retain(|span| span.text("trace") == over_unix);
    check_deferred(&spans, ROUTE);
}

#[test]
fn failures_are_in_error_and_who_asks_decides_what_is_traced() {
    let Some(traced) = traced() else { return };
    let error = |nth: u32, code: &str, status: u16, span_status: &str| {
        let spans = traced.collector.trace(&format!("{nth:032x}"), 1).unwrap();
        let span = named(&spans, "outrigger-agent", ROUTE);
        assert_eq!(span.attribute("error.type"), code);
        assert_eq!(span.attribute("http.response.status_code"), status);
        assert_eq!(span.text("status"), span_status);
    };
    let (_, late) = parent(1, "01");
    let socket = TcpStream::connect(traced.agent.address()).unwrap();
    let answer = ask_raw(socket, &late, b"{", 1000);
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    error(1, "deadline_exceeded", 504, "error");
    let (_, refused) = parent(2, "01");
    let body = vec![b' '; 2 << 20];
    let mut client = traced.agent.client().unwrap();
    let answer = client.post(INFER, &[("traceparent", &refused)], &body).unwrap();
    assert_eq!(answer.status, 503);
    error(2, "overloaded", 503, "error");
    // A mistake of the caller's is no error of the server's, by OpenTelemetry's conventions.
    let (_, wrong) = parent(3, "01");
    let mut client = traced.agent.client().unwrap();
    assert_eq!(client.post(INFER, &[("traceparent", &wrong)], b"{").unwrap().status, 400);
    error(3, "invalid_request", 400, "unset");

    // Neither what is malformed, nor what the caller does not record, nor what begins here unsampled.
    let (unsampled, parent_4) = parent(4, "00");
    let (malformed, parent_5) = parent(5, "01");
    for headers in [
        vec![("traceparent", parent_4)],
        vec![("traceparent", parent_5.replace("00-", "0-"))],
        vec![],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(traced.ask(&headers).status, 200);
    }
    // The cloud, asked directly, begins traces of its own: all of them, as it was told.
    let admin = traced.world.cloud.admin().unwrap();
    let mut client = traced.world.cloud.client().unwrap();
    let key = [("authorization", admin.as_str())];
    assert_eq!(client.post(INFER, &key, &doubtful()).unwrap().status, 200);
    let Traced { mut world, collector, agent } = traced;
    agent.stop().unwrap();
    world.cloud.stop().unwrap();
    let spans = collector.spans().unwrap();
    let of_cloud: Vec<_> =
        spans.iter().filter(|span| span.text("service") == "outrigger-cloud").collect();
    assert_eq!(of_cloud.len(), 4, "{of_cloud:#?}");
    assert!(of_cloud.iter().any(|span| span.text("parent").is_empty()));
    let foreign = |span: &&Span| [&unsampled, &malformed].contains(&&span.text("trace").to_owned());
    assert!(!spans.iter().any(|span| foreign(&span)));
    let keys = collector.headers("x-collector-key");
    assert_eq!(keys, [None, Some("s3cret".to_owned())].into(), "the cloud's, and the agent's");
}

/// Nothing is lost but what the collector was to be told, and that is counted.
#[test]
fn a_collector_that_is_away_costs_nobody_an_answer() {
    for protocol in ["http", "grpc"] {
        check_away(protocol);
    }
}

fn check_away(protocol: &str) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let config = format!(
        "[otlp]\nendpoint = \"{endpoint}\"\nprotocol = \"{protocol}\"\nsample = 1.0\ninterval_s = 1"
    );
    let agent = world.agent("device", &AgentOptions { config }).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let mut client = agent.client().unwrap();
    let body = json!({ "inputs": serde_json::from_slice::<Value>(&doubtful()).unwrap()["inputs"],
        "parameters": { "placement": "edge" } });
    let body = body.to_string().into_bytes();
    for _ in 0..800 {
        assert_eq!(client.post(INFER, &[], &body).unwrap().status, 200);
    }
    let scrape = || {
        let address = std::fs::read_to_string(agent.state_dir().join("metrics-listening")).ok()?;
        let address = address.trim().strip_prefix("http://")?.parse().ok()?;
        let mut client = outrigger_tests::http::HttpClient::connect(address).ok()?;
        let text = client.get("/metrics").ok()?.body;
        let scrape = Scrape::parse(&String::from_utf8(text).ok()?).ok()?;
        let failures =
            |signal| scrape.value("outrigger_otlp_export_failures_total", &[("signal", signal)]);
        let failed = |signal| failures(signal).is_some_and(|failures| failures > 0.0);
        ["traces", "metrics", "logs"].into_iter().all(failed).then_some(scrape)
    };
    let scrape =
        eventually("a failed export of each signal", Duration::from_secs(60), scrape).unwrap();
    let items = |signal, result| {
        let labels = [("signal", signal), ("result", result)];
        scrape.value("outrigger_otlp_items_total", &labels)
    };
    for signal in ["traces", "metrics", "logs"] {
        assert_eq!(items(signal, "sent"), Some(0.0));
    }
    let no_room = items("traces", "no_room");
    assert!(no_room >= Some(300.0), "three spans each: {no_room:?}");
    assert!(items("metrics", "undelivered") > Some(50.0), "none of them waits");
    agent.stop().unwrap();
}
