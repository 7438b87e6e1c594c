//! Clients that hold places and send little: they are let go, typed where there is somebody to tell,
//! and others are served meanwhile.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::bad::{ask_http, binary_body, refusals};
use outrigger_tests::grpc::{self, GrpcClient};
use outrigger_tests::small_models::SmallModel;
use outrigger_tests::world::{Agent, AgentOptions, World, eventually};
use protocol::tensor::Tensor;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn fleet(local: &str) -> (World, Agent) {
    let world = World::start().unwrap();
    SmallModel::Plain.ship(&world).unwrap();
    let options = AgentOptions { config: format!("[local]\n{local}\n") };
    let agent = world.agent("device", &options).unwrap();
    agent.wait_active("plain", 1).unwrap();
    (world, agent)
}

fn small() -> Tensor {
    Tensor::from_f32("x", vec![1, 2], &[0.0, 0.0]).unwrap()
}

/// A connection that has sent this much.
fn begun(agent: &Agent, beginning: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(beginning.as_bytes()).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // a reset is an end as well
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn half_heads_and_half_bodies_do_not_stop_others() {
    let (_world, agent) = fleet("first_head_s = 1\nbody_s = 2");
    let heads = ["", "PRI * HT", "POST /v2/models/plain/infer HTTP/1.1\r\nHost: localhost\r\nX: "];
    let silent: Vec<_> = heads.repeat(80).iter().map(|head| begun(&agent, head)).collect();
    let body = "POST /v2/models/plain/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
                Connection: close\r\n\r\n{";
    let slow: Vec<_> = (0..80).map(|_| begun(&agent, body)).collect();
    for _ in 0..20 {
        assert_eq!(ask_http(&agent, "plain", &[small()], &json!({})).unwrap().status, 200);
    }
    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let late = grpc.send(&[], grpc::framed(&[0; 100]).slice(..50), false).unwrap();
    assert_eq!((late.status, late.code.as_str()), (4, "deadline_exceeded"), "{late:?}");
    assert!(late.text.contains("send it faster"), "{late:?}");
    for stream in slow {
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        assert!(answer.contains("deadline_exceeded") && answer.contains("send it faster"));
    }
    for stream in silent {
        assert_eq!(rest(stream), "", "there is nobody to tell");
    }
    assert_eq!(refusals(&agent, "slow_connections").unwrap(), 240);
    assert_eq!(refusals(&agent, "deadline_exceeded").unwrap(), 81);
    assert_eq!(grpc.infer(&grpc::request("plain", &[small()])).unwrap().status, 0);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", agent.process().id())).unwrap().count();
    eventually("files are closed", Duration::from_secs(20), || (files() < 60).then_some(()))
        .unwrap();
}

/// Whether the other end of a connection on loopback has taken in all that was sent: nothing is queued
/// at either end, as the system's table of connections has it.
fn all_is_read(stream: &TcpStream) -> Option<()> {
    let end = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let ends = [end(stream.local_addr().ok()?), end(stream.peer_addr().ok()?)];
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let queue = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (here, there) = (fields.get(1)?, fields.get(2)?);
        let own = ends.iter().all(|end| here.ends_with(end) || there.ends_with(end));
        own.then(|| fields.get(4).map(ToString::to_string))?
    };
    let queues: Vec<String> = table.lines().filter_map(queue).collect();
    (queues.len() == 2 && queues.iter().all(|queue| queue == "00000000:00000000")).then_some(())
}

#[test]
fn bodies_share_a_bounded_memory() {
    let (_world, agent) = fleet("request_memory_mb = 4");
    let large = Tensor::from_f32("x", vec![400_000, 2], &vec![0.5; 800_000]).unwrap(); // 3.2 MB
    let (len, body) = binary_body(std::slice::from_ref(&large), &json!({}), &json!([]));
    let head = format!(
        "POST /v2/models/plain/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {len}\r\n\r\n",
        body.len()
    );
    let mut holder = begun(&agent, &head);
    holder.write_all(&body[..3_000_000]).unwrap();
    eventually("the body is read", Duration::from_secs(20), || all_is_read(&holder)).unwrap();
    // The rest of the body is on its way for as long as this test wants.
    let full = eventually("the memory is full", Duration::from_secs(20), || {
        let answer = ask_http(&agent, "plain", std::slice::from_ref(&large), &json!({})).ok()?;
        (answer.status == 503).then_some(answer)
    });
    let full = full.unwrap();
    assert_eq!(full.json().unwrap()["code"], "overloaded");
    assert!(full.header("retry-after").is_some());
    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let refused = grpc.infer(&grpc::request("plain", std::slice::from_ref(&large))).unwrap();
    assert_eq!((refused.status, refused.code.as_str()), (14, "overloaded"));
    assert_eq!(ask_http(&agent, "plain", &[small()], &json!({})).unwrap().status, 200, "it fits");
    assert!(refusals(&agent, "overloaded").unwrap() >= 2);
    drop(holder);
    eventually("the memory is free", Duration::from_secs(20), || {
        let answer = grpc.infer(&grpc::request("plain", std::slice::from_ref(&large))).ok()?;
        (answer.status == 0).then_some(())
    })
    .unwrap();
}
