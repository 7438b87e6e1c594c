//! Floods and slow senders at the cloud's one port, TCP and UDP: memory stays bounded, whoever can be
//! told is told, and others are answered meanwhile.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::floods::{End, Http2Flood, Silent, quic_initials};
use outrigger_tests::http::{HttpResponse, Wire};
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::world::{AgentOptions, World, eventually, pss_kb};
use serde_json::json;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// What the cloud may take more for a while: half of what the bodies of all requests may.
const GROWTH_MAX_KB: u64 = 128 << 10;

struct Fleet {
    world: World,
    auth: String,
}

impl Fleet {
    fn start() -> Self {
        let world = World::start().unwrap();
        world.ship_fashion().unwrap();
        let auth = world.cloud.admin().unwrap();
        Self { world, auth }
    }

    fn address(&self) -> SocketAddr {
        self.world.cloud.address().parse().unwrap()
    }

    fn post(&self, body: &[u8]) -> HttpResponse {
        let headers = [("Authorization", self.auth.as_str())];
        let mut client = self.world.cloud.client().unwrap();
        client.post("/v2/models/fashion/infer", &headers, body).unwrap()
    }

    /// A good request is answered.
    fn answers(&self) {
        let input = json!({ "name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28],
                            "data": vec![0; 784] });
        let body = json!({ "inputs": [input], "parameters": { "timeout": 20_000_000 } });
        let response = self.post(body.to_string().as_bytes());
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    }

    fn pss_kb(&self) -> u64 {
        pss_kb(self.world.cloud.process().unwrap().id()).unwrap()
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let headers = [("Authorization", self.auth.as_str())];
        let mut client = self.world.cloud.client().unwrap();
        let response = client.send("GET", "/metrics", &headers, &[]).unwrap();
        let text = String::from_utf8(response.body).unwrap();
        Scrape::parse(&text).unwrap().value(name, labels).unwrap()
    }
}

#[test]
fn http2_floods_end_their_connection_and_nothing_else() {
    let fleet = Fleet::start();
    fleet.answers();
    let before_kb = fleet.pss_kb();
    for flood in Http2Flood::ALL {
        let end = flood.send(fleet.address(), &fleet.world.cloud.ca_pem()).unwrap();
        match flood {
            // Each is cut off by HTTP/2's own means.
            Http2Flood::RapidReset | Http2Flood::Continuation => {
                assert!(matches!(end, End::GoAway(_) | End::Closed), "{flood:?} {end:?}");
            }
            // Nobody reads the answers: the server stops reading questions.
            Http2Flood::Settings | Http2Flood::Pings => assert_ne!(end, End::Open, "{flood:?}"),
        }
        let grown_kb = fleet.pss_kb().saturating_sub(before_kb);
        assert!(grown_kb < GROWTH_MAX_KB, "{flood:?}: {grown_kb} kB more");
        fleet.answers();
    }
}

#[test]
fn headers_beyond_the_limit_are_refused() {
    let fleet = Fleet::start();
    let filler = "a".repeat(300 << 10);
    let mut client = fleet.world.cloud.client().unwrap();
    let refused = client.send("GET", "/v2", &[("X-Filler", &filler)], &[]);
    // 431, or a connection that was closed while the rest was still being sent.
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status == 431));
    fleet.answers();
}

#[test]
fn a_hundred_megabytes_of_numbers_are_counted_not_kept() {
    let fleet = Fleet::start();
    fleet.answers();
    let before_kb = fleet.pss_kb();
    let head = r#"{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,28,28],"data":["#;
    let body = [head.as_bytes(), &b"1,".repeat(50_000_000 - 50), b"1]}]}"].concat();
    let response = fleet.post(&body);
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert_eq!(
        (response.status, response.json().unwrap()["code"].as_str()),
        (400, Some("invalid_request")),
        "{text}"
    );
    assert!(text.contains("more elements than its shape"), "{text}");
    drop(body);
    let settled = || fleet.pss_kb() < before_kb + GROWTH_MAX_KB;
    eventually("memory is given back", Duration::from_secs(20), || settled().then_some(()))
        .unwrap();
    fleet.answers();
}

#[test]
fn one_byte_at_a_time_is_not_waited_for() {
    let mut fleet = Fleet::start();
    let patience = [("OUTRIGGER_CLOUD_SERVER_HEAD_S", "1"), ("OUTRIGGER_CLOUD_SERVER_BODY_S", "2")];
    let patience = patience.map(|(name, value)| (name, value.into()));
    fleet.world.cloud.restart_in(&patience).unwrap();
    let connect = || Wire::connect_tls(fleet.address(), &fleet.world.cloud.ca_pem(), b"http/1.1");
    let mut heads: Vec<Wire> = (0..50).map(|_| connect().unwrap()).collect();
    let mut bodies: Vec<Wire> = (0..50).map(|_| connect().unwrap()).collect();
    let head = format!(
        "POST /v2/models/fashion/infer HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\
         Content-Length: 1000\r\nConnection: close\r\n\r\n",
        fleet.auth
    );
    for body in &mut bodies {
        body.write_all(head.as_bytes()).unwrap();
        body.flush().unwrap();
    }
    for byte in &head.as_bytes()[..2] {
        for wire in heads.iter_mut().chain(&mut bodies) {
            // Those that were let go of meanwhile cannot be written to.
            let _ = wire.write_all(&[*byte]).and_then(|()| wire.flush());
        }
        fleet.answers();
        std::thread::sleep(Duration::from_secs(1)); // what such a sender does
    }
    let rest = |wire: &mut Wire| {
        let mut bytes = Vec::new();
        let _ = wire.read_to_end(&mut bytes); // a reset is an end as well
        String::from_utf8_lossy(&bytes).into_owned()
    };
    for wire in &mut heads {
        assert!(!rest(wire).contains("200 OK"));
    }
    for wire in &mut bodies {
        let answer = rest(wire);
        assert!(
            answer.starts_with("HTTP/1.1 504") && answer.contains("deadline_exceeded"),
            "{answer}"
        );
    }
    let open = || fleet.metric("outrigger_cloud_connections", &[("transport", "https")]);
    eventually("they are closed", Duration::from_secs(20), || (open() < 5.0).then_some(()))
        .unwrap();
}

/// Addresses that never prove to be real get the demand for a proof, which is smaller than what they
/// sent (RFC 9000, section 8.1, allows three times as much), and nothing is kept of them.
#[test]
fn a_flood_of_quic_handshakes_is_not_amplified_and_locks_nobody_out() {
    let fleet = Fleet::start();
    let agent = fleet.world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let before_kb = fleet.pss_kb();
    let initials = quic_initials(600).unwrap();
    let senders: Vec<Silent> =
        initials.iter().map(|initial| Silent::send(fleet.address(), initial).unwrap()).collect();
    let open = fleet.metric("outrigger_cloud_connections", &[("transport", "quic")]);
    assert!(open <= 2.0, "{open} connections: nothing is kept of who is not known to be real");
    let images = Images::test().unwrap();
    let parameters = json!({ "placement": "cloud", "timeout": 20_000_000 });
    let answer = ask(&mut agent.client().unwrap(), images.pixels(0), &parameters).unwrap();
    assert_eq!(answer.status, 200, "a connected device is answered");
    let other = fleet.world.agent("other", &AgentOptions::default()).unwrap();
    other.wait_until("connected", |status| status["connected"] == true).unwrap();
    let grown_kb = fleet.pss_kb().saturating_sub(before_kb);
    assert!(grown_kb < GROWTH_MAX_KB, "{grown_kb} kB more");

    let asked = || fleet.metric("outrigger_cloud_addresses_asked_for_proof_total", &[]);
    // Most of them: the system drops datagrams that come faster than they are read.
    eventually("the flood is through", Duration::from_secs(20), || (asked() > 100.0).then_some(()))
        .unwrap();
    let came_back: Vec<_> = senders.iter().map(|sender| sender.came_back().unwrap()).collect();
    let most = came_back.iter().map(|back| back.amplification).fold(0.0, f64::max);
    let retried = came_back.iter().filter(|back| back.was_retried).count();
    println!("amplification at most {most:.2}, {retried} of 600 were asked for a proof");
    assert!(most > 0.0 && most <= 3.0, "amplification {most}");
    assert!(retried > 100, "{retried} of 600 were asked for a proof");
}
