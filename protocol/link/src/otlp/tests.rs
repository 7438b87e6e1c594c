//! Real bytes to a real socket; what they mean is judged in `protocol::otlp`, and by OpenTelemetry's
//! own library in the tests of the whole.

use super::*;
use crate::traces::Trace;
use protocol::id::Version;
use protocol::infer::{Placement, Reason, Timing, Verdict};
use protocol::problem::{Problem, ProblemCode};
use protocol::trace::{Origin, TraceContext, Via};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Instant;

const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Lines of a head, and a body.
type Arrived = (Vec<String>, Vec<u8>);

/// A collector that gives these answers, one after the other, and says what it got.
fn collector(answers: &'static [&'static str]) -> (String, mpsc::Receiver<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut head = Vec::new();
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                head.push(std::mem::take(&mut line).trim().to_lowercase());
            }
            let len = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; len.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let text = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(text.as_bytes()).unwrap();
            sender.send((head, body)).unwrap();
        }
    });
    (endpoint, receiver)
}

fn start(endpoint: &str, sample: f64) -> Otlp {
    let settings = OtlpSettings { endpoint: endpoint.to_owned(), sample, ..Default::default() };
    let service = Service { name: "outrigger-test", version: "1", instance: None };
    Otlp::start(&settings, service).unwrap()
}

fn origin(parent: &[u8]) -> Origin {
    let parent = TraceContext::from_headers(Some(parent).filter(|p| !p.is_empty()), []);
    Origin { via: Via::Http, parent }
}

fn serve(otlp: &Otlp, parent: &[u8]) -> Trace {
    otlp.traces().serve(origin(parent), "http", &"fashion".parse().unwrap(), || 1_000_000_000)
}

fn verdict() -> Verdict {
    Verdict {
        placement: Placement::Edge,
        reason: Reason::Confident,
        plan: None,
        version: Version::FIRST,
        confidence: Some(0.5),
        risk: None,
        label: None,
        timing: Timing::default(),
        attempts: 0,
        saved_bytes: 0,
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[test]
fn off_nothing_is_recorded_and_contexts_pass_through() {
    let otlp = Otlp::default();
    let trace = serve(&otlp, PARENT);
    assert!(!trace.is_recording());
    assert_eq!(trace.call("x").context().map(ToString::to_string).unwrap().as_bytes(), PARENT);
    assert_eq!(serve(&otlp, b"").call("x").context(), None);
    assert_eq!(otlp.counts(Signal::Traces), Counts::default());
}

#[test]
fn what_is_not_sampled_is_said_to_whoever_is_asked() {
    let (endpoint, _unused) = collector(&[]);
    let otlp = start(&endpoint, 0.0);
    let trace = serve(&otlp, b"");
    assert!(!trace.is_recording());
    assert!(!trace.call("x").context().unwrap().is_sampled());
    assert!(serve(&otlp, PARENT).is_recording(), "whoever asks has decided");
    let unsampled = PARENT.strip_suffix(b"1").map(|start| [start, b"0"].concat()).unwrap();
    let trace = serve(&otlp, &unsampled);
    assert_eq!(trace.call("x").context().map(ToString::to_string).unwrap().as_bytes(), unsampled);
}

#[test]
fn spans_arrive_after_the_collector_was_busy() {
    let (endpoint, arrived) = collector(&["503 Busy\r\nretry-after: 0", "200 OK"]);
    let otlp = start(&endpoint, 0.0);
    let mut trace = serve(&otlp, PARENT);
    let began = Instant::now();
    drop(trace.part("queue", began, Duration::from_micros(5)));
    let asked = trace.call("outrigger/infer").context().unwrap().clone();
    assert_eq!(hex(&asked.trace().bytes()[..]), "0af7651916cd43dd8448eb211c80319c");
    trace.answered(&verdict());
    drop(trace);
    let first = arrived.recv().unwrap();
    let (head, body) = arrived.recv().unwrap();
    assert_eq!(first.1, body, "the same once more");
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()), "{head:?}");
    assert!(contains(&body, asked.span().bytes()) && contains(&body, b"outrigger.placement"));
    otlp.finish(Duration::from_secs(10));
    assert_eq!(otlp.counts(Signal::Traces), Counts { sent: 3, failures: 1, ..Counts::default() });
}

#[test]
fn what_the_collector_does_not_want_is_counted() {
    let (endpoint, arrived) = collector(&["400 Bad Request"]);
    let otlp = start(&endpoint, 1.0);
    let mut trace = serve(&otlp, b"");
    trace.failed(&Problem::new(ProblemCode::Overloaded, "full of secrets"));
    drop(trace);
    let (_, body) = arrived.recv().unwrap();
    assert!(contains(&body, b"overloaded") && !contains(&body, b"secrets"));
    otlp.finish(Duration::from_secs(10));
    assert_eq!(
        otlp.counts(Signal::Traces),
        Counts { rejected: 1, failures: 1, ..Counts::default() }
    );
}

#[test]
fn without_a_collector_spans_are_lost_and_nothing_waits() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let otlp = start(&endpoint, 1.0);
    let most = OutboxPolicy::default().items_max as u64;
    for _ in 0..most + 7 {
        drop(serve(&otlp, b""));
    }
    assert_eq!(otlp.counts(Signal::Traces).no_room, 7);
    otlp.finish(Duration::from_secs(60));
    let Counts { undelivered, sent, .. } = otlp.counts(Signal::Traces);
    assert_eq!((undelivered, sent), (most, 0));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn figures_are_told_at_the_interval_and_at_the_end() {
    let (endpoint, arrived) = collector(&["503 Busy", "200 OK"]);
    let settings = OtlpSettings { endpoint, interval_s: 1, ..Default::default() };
    let service = Service { name: "outrigger-test", version: "1", instance: None };
    let otlp = Otlp::start(&settings, service).unwrap();
    let gather = || {
        let mut out = Exposition::default();
        out.family("a_total", "", Kind::Counter).sample(&[("x", "y")], 7);
        Some(out)
    };
    otlp.tell_metrics(gather, || 5).unwrap();
    let (head, body) = arrived.recv().unwrap();
    assert_eq!(head[0], "post /v1/metrics http/1.1");
    assert!(contains(&body, b"a_total"));
    otlp.finish(Duration::from_secs(10));
    assert!(contains(&arrived.recv().unwrap().1, b"a_total"), "the next one makes it good");
    let counts = Counts { sent: 1, undelivered: 1, failures: 1, ..Counts::default() };
    assert_eq!(otlp.counts(Signal::Metrics), counts);
}
