//! Peers over TCP with a valid certificate that break the protocol of streams, and some without one.

use link::connection::Ended;
use link::dial::DialError;
use link::tls::{self, Identity};
use protocol::carrier::alpn_over_tcp;
use protocol::problem::ProblemCode;
use protocol::{ALPN_AGENT, mux};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Cloud, Device, hello, start};

/// Longer than a silent peer is borne with.
const PATIENCE: Duration = Duration::from_secs(30);

fn header(kind: u8, stream: u32, value: u32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&stream.to_le_bytes());
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes
}

async fn raw(cloud: &Cloud, device: &Device) -> TlsStream<TcpStream> {
    let ca = cloud.server.cloud().ca.certificate();
    let mut tls = tls::client(ca, Some(device.identity.clone()), ALPN_AGENT).unwrap();
    tls.alpn_protocols = vec![alpn_over_tcp(ALPN_AGENT).unwrap().to_vec()];
    let stream = TcpStream::connect(cloud.server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
}

/// The code with which the server ends the connection.
async fn ended_with(stream: &mut TlsStream<TcpStream>) -> ProblemCode {
    let mut all = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    end.expect("the server ends the connection").unwrap();
    let close = all.windows(mux::HEADER_BYTES).rfind(|frame| frame[0] == 11 && frame[8] == 0);
    let close = close.expect("it says why");
    ProblemCode::from_number(u32::from_le_bytes(close[1..5].try_into().unwrap()))
}

#[test]
fn broken_streams_end_the_connection_and_nothing_else() {
    let cloud = start();
    let device = cloud.device();
    let mut flood: Vec<u8> = (0..1000).flat_map(|stream| header(0, stream, 0)).collect();
    flood.extend(header(9, 0, 0));
    let most = u32::try_from(mux::DATA_MAX_BYTES).unwrap();
    let too_much = |frames: usize| {
        let mut bytes = header(0, 0, 0);
        for _ in 0..frames {
            bytes.extend(header(1, 0, most));
            bytes.resize(bytes.len() + mux::DATA_MAX_BYTES, 0);
        }
        bytes
    };
    let cases = [
        ("an unknown kind", header(99, 0, 0)),
        ("a frame that is too large", [header(0, 0, 0), header(1, 0, u32::MAX)].concat()),
        ("a stream that was never opened", header(1, 7, 0)),
        ("a flood of streams", flood),
        ("more than a window", too_much(300)),
        ("data after the end", [header(0, 0, 0), header(2, 0, 0), header(2, 0, 0)].concat()),
    ];
    cloud.runtime.block_on(async {
        for (what, bytes) in &cases {
            let mut stream = raw(&cloud, &device).await;
            let _ = stream.write_all(bytes).await; // it may be cut off before the end
            assert_eq!(ended_with(&mut stream).await, ProblemCode::Protocol, "{what}");
        }
    });
    let connection = cloud.agent(&device);
    assert!(cloud.runtime.block_on(hello(&connection)).is_ok(), "the server lives");
}

#[test]
fn half_a_frame_and_then_nothing() {
    let cloud = start();
    let device = cloud.device();
    cloud.runtime.block_on(async {
        let mut stream = raw(&cloud, &device).await;
        stream.write_all(&header(0, 0, 0)[..4]).await.unwrap();
        let mut all = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        assert!(end.is_ok(), "a silent peer is given up");
    });
}

#[test]
fn who_shows_no_certificate_or_a_wrong_one_gets_nowhere() {
    let (cloud, other) = (start(), start());
    let ca = cloud.server.cloud().ca.certificate();
    let nobody = cloud.connect(tls::client(ca, None, ALPN_AGENT).unwrap()).unwrap();
    assert_eq!(cloud.closed(&nobody).0, ProblemCode::Unauthorised);
    let stranger = |identity: Identity| tls::client(ca, Some(identity), ALPN_AGENT).unwrap();
    let refused = match cloud.connect(stranger(other.device().identity)) {
        // TLS 1.3 tells a client after its handshake that its certificate is refused.
        Ok(connection) => cloud.runtime.block_on(connection.closed()),
        Err(DialError::Ended(ended)) => ended,
        Err(error) => panic!("{error}"),
    };
    assert!(matches!(refused, Ended::Certificate(_) | Ended::Lost(_)), "{refused:?}");
    let elsewhere = tls::client(other.server.cloud().ca.certificate(), None, ALPN_AGENT).unwrap();
    let refused = cloud.connect(elsewhere).unwrap_err();
    assert!(matches!(refused, DialError::Ended(Ended::Certificate(_))), "{refused}");
    assert_eq!(cloud.server.cloud().online.len(), 0);
}

/// A browser's handshake at the same port is not asked for a certificate, and an agent's is.
#[test]
fn https_goes_on_beside_it() {
    let cloud = start();
    let connection = cloud.agent(&cloud.device());
    assert!(cloud.runtime.block_on(hello(&connection)).is_ok());
    assert_eq!(cloud.call(None, "GET", "/healthz", b"").0, 200);
    assert_eq!(cloud.server.cloud().events.counts().connections_over_tcp, 2); // it enrolled before
}
