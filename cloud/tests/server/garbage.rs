//! A peer that breaks the protocol loses its connection, with a code; the server lives.

use link::connection::Connection;
use protocol::ALPN_ENROL;
use protocol::problem::ProblemCode;

use crate::support::{Cloud, hello, start};

fn send_raw(cloud: &Cloud, connection: &Connection, bytes: &[u8]) {
    cloud.runtime.block_on(async {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let _ = send.stopped().await;
    });
}

/// Frames that no peer should send, and the code they earn.
const GARBAGE: [(&[u8], ProblemCode); 7] = [
    (b"\xff\0\0\0\0", ProblemCode::Protocol), // unknown kind
    (b"\x01\xff\xff\xff\x7f", ProblemCode::TooLarge), // 2 GiB of hello
    (b"\x01\x05\0\0\0ab", ProblemCode::Protocol), // truncated
    (b"\x01\x02\0\0\0\xff\xff", ProblemCode::Protocol), // undecodable
    (b"\x05\0\0\0\0", ProblemCode::Protocol), // an answer instead of a request
    (b"GET / HTTP/1.1\r\n\r\n", ProblemCode::Protocol),
    (b"", ProblemCode::Protocol),
];

#[test]
fn garbage_from_an_agent_closes_its_connection() {
    let cloud = start();
    let device = cloud.device();
    for (bytes, expected) in GARBAGE {
        let connection = cloud.agent(&device);
        send_raw(&cloud, &connection, bytes);
        assert_eq!(cloud.closed(&connection).0, expected, "{bytes:?}");
    }
    assert_eq!(cloud.server.cloud().events.counts().protocol_errors, GARBAGE.len() as u64);
    let connection = cloud.agent(&device);
    assert!(cloud.runtime.block_on(hello(&connection)).is_ok(), "the server lives");
}

#[test]
fn garbage_instead_of_an_enrolment_closes_the_connection() {
    let cloud = start();
    for (bytes, expected) in GARBAGE {
        let tls = link::tls::pinned_client(cloud.admin.ca_hash, ALPN_ENROL).unwrap();
        let connection = cloud.connect(tls).unwrap();
        send_raw(&cloud, &connection, bytes);
        assert_eq!(cloud.closed(&connection).0, expected, "{bytes:?}");
    }
    assert_eq!(cloud.device().id.len(), "d-01234567".len());
}

#[test]
fn there_is_one_control_stream() {
    let cloud = start();
    let connection = cloud.agent(&cloud.device());
    let first = cloud.runtime.block_on(hello(&connection));
    assert!(first.is_ok());
    let _ = cloud.runtime.block_on(hello(&connection));
    assert_eq!(cloud.closed(&connection).0, ProblemCode::Protocol);
}

#[test]
fn junk_datagrams_and_plain_text_are_survived() {
    let cloud = start();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 20, 1200] {
        socket.send_to(&vec![0xc7; len], cloud.server.address()).unwrap();
    }
    let mut plain = std::net::TcpStream::connect(cloud.server.address()).unwrap();
    std::io::Write::write_all(&mut plain, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(cloud.call(None, "GET", "/healthz", b"").0, 200);
    cloud.device();
}
