//! One connection and its streams, whatever carries them: QUIC, or streams multiplexed over TLS and TCP
//! ([`crate::tcp`]). Whoever speaks on it need not know which.

use crate::frames::LinkError;
use crate::{quic, tcp};
use bytes::Bytes;
use protocol::carrier::{Carrier, alpn_from_tcp};
use protocol::limits::{CONNECTION_WINDOW_BYTES, STREAMS_PER_CONNECTION};
use protocol::mux::Priority;
use protocol::problem::ProblemCode;
use quinn::VarInt;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// This end closed it.
    #[error("closed here")]
    Here,
    /// The other end closed it, and said why.
    #[error("closed by the peer ({}): {reason}", .code.as_str())]
    ByPeer {
        /// Why.
        code: ProblemCode,
        /// For people.
        reason: String,
    },
    /// Nothing was heard for too long.
    #[error("the peer is silent")]
    Silent,
    /// One end took the other's certificate for no good.
    #[error("a certificate was refused: {0}")]
    Certificate(String),
    /// The other end broke the protocol beneath the messages.
    #[error("the peer broke the protocol: {0}")]
    Broken(String),
    /// The network, or the other end, cut it off.
    #[error("{0}")]
    Lost(String),
}

/// TLS alerts 40 to 51 speak of certificates (RFC 8446 section 6.2); QUIC adds 0x100.
const CERTIFICATE_ALERTS: std::ops::Range<u64> = 0x100 + 40..0x100 + 52;

impl From<quinn::ConnectionError> for Ended {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::LocallyClosed => Self::Here,
            E::TimedOut => Self::Silent,
            E::ApplicationClosed(close) => Self::ByPeer {
                code: code_of(close.error_code),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            E::TransportError(e) if CERTIFICATE_ALERTS.contains(&u64::from(e.code)) => {
                Self::Certificate(e.to_string())
            }
            E::ConnectionClosed(e) if CERTIFICATE_ALERTS.contains(&u64::from(e.error_code)) => {
                Self::Certificate(e.to_string())
            }
            E::TransportError(e) => Self::Broken(e.to_string()),
            other => Self::Lost(other.to_string()),
        }
    }
}

fn code_of(code: VarInt) -> ProblemCode {
    ProblemCode::from_number(u32::try_from(code.into_inner()).unwrap_or(u32::MAX))
}

/// A connection; its clones are the same one. It is closed when the last of them and of its streams is
/// dropped.
#[derive(Debug, Clone)]
pub struct Connection(Carried);

#[derive(Debug, Clone)]
enum Carried {
    /// The endpoint of a client carries nothing else.
    Quic(quinn::Connection, Option<quinn::Endpoint>),
    Tcp(tcp::Connection),
}

impl From<quinn::Connection> for Connection {
    fn from(connection: quinn::Connection) -> Self {
        Self(Carried::Quic(connection, None))
    }
}

impl From<tcp::Connection> for Connection {
    fn from(connection: tcp::Connection) -> Self {
        Self(Carried::Tcp(connection))
    }
}

/// What a connection has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The congestion window; 0 where the system keeps it to itself.
    pub window_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost.
    pub lost_packets: u64,
}

impl Connection {
    /// A client's connection, with the endpoint that carries it alone.
    pub(crate) fn of_client(connection: quinn::Connection, endpoint: quinn::Endpoint) -> Self {
        Self(Carried::Quic(connection, Some(endpoint)))
    }

    /// What carries it.
    pub fn carrier(&self) -> Carrier {
        match &self.0 {
            Carried::Quic(..) => Carrier::Quic,
            Carried::Tcp(_) => Carrier::Tcp,
        }
    }

    /// Opens a stream, once the peer lets another in.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        match &self.0 {
            Carried::Quic(connection, _) => {
                let (send, receive) = connection.open_bi().await?;
                Ok((SendStream(Sending::Quic(send)), RecvStream(Receiving::Quic(receive))))
            }
            Carried::Tcp(connection) => Ok(halves(connection.open().await?)),
        }
    }

    /// The next stream that the peer opens.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), Ended> {
        match &self.0 {
            Carried::Quic(connection, _) => {
                let (send, receive) = connection.accept_bi().await?;
                Ok((SendStream(Sending::Quic(send)), RecvStream(Receiving::Quic(receive))))
            }
            Carried::Tcp(connection) => Ok(halves(connection.accept().await?)),
        }
    }

    /// Lets the peer open as many streams as it ever may. Until then, over QUIC, it may open few.
    pub fn open_wide(&self) {
        if let Carried::Quic(connection, _) = &self.0 {
            connection.set_max_concurrent_bi_streams(STREAMS_PER_CONNECTION.into());
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) -> Ended {
        match &self.0 {
            Carried::Quic(connection, _) => connection.closed().await.into(),
            Carried::Tcp(connection) => connection.closed().await,
        }
    }

    /// Why it is over, if it is.
    pub fn close_reason(&self) -> Option<Ended> {
        match &self.0 {
            Carried::Quic(connection, _) => connection.close_reason().map(Ended::from),
            Carried::Tcp(connection) => connection.ended(),
        }
    }

    /// Ends it with a code that the peer can tell from others.
    pub fn close(&self, code: ProblemCode, reason: &str) {
        match &self.0 {
            Carried::Quic(connection, _) => {
                connection.close(code.number().into(), reason.as_bytes());
            }
            Carried::Tcp(connection) => connection.close(code, reason),
        }
    }

    /// Ends a client's connection in order, and waits until the peer knows.
    pub async fn finish(&self) {
        self.close(ProblemCode::None, "");
        match &self.0 {
            Carried::Quic(_, Some(endpoint)) => endpoint.wait_idle().await,
            Carried::Quic(_, None) => {}
            Carried::Tcp(connection) => connection.gone().await,
        }
    }

    /// Which one it is: no two of a process that live at the same time have the same number.
    pub fn stable_id(&self) -> usize {
        match &self.0 {
            Carried::Quic(connection, _) => connection.stable_id(),
            Carried::Tcp(connection) => connection.stable_id(),
        }
    }

    /// The other end's address now.
    pub fn remote_address(&self) -> SocketAddr {
        match &self.0 {
            Carried::Quic(connection, _) => connection.remote_address(),
            Carried::Tcp(connection) => connection.remote_address(),
        }
    }

    /// How long a round takes.
    pub fn rtt(&self) -> Duration {
        match &self.0 {
            Carried::Quic(connection, _) => connection.rtt(),
            Carried::Tcp(connection) => connection.rtt(),
        }
    }

    /// A number that grows whenever something is heard from the other end.
    pub fn heard(&self) -> u64 {
        match &self.0 {
            Carried::Quic(connection, _) => connection.stats().udp_rx.datagrams,
            Carried::Tcp(connection) => connection.heard(),
        }
    }

    /// How often the other end has challenged this end's address: it saw another one than before.
    pub fn challenges(&self) -> u64 {
        match &self.0 {
            Carried::Quic(connection, _) => connection.stats().frame_rx.path_challenge,
            Carried::Tcp(_) => 0,
        }
    }

    /// Sends the smallest thing that the other end has to acknowledge.
    ///
    /// Over QUIC: it lets the peer send one byte more (`MAX_DATA`), for there is no PING that could be called for. The
    /// window itself does not grow: the byte is taken back before the next one is given.
    pub fn nudge(&self) {
        match &self.0 {
            Carried::Quic(connection, _) => {
                connection.set_receive_window(CONNECTION_WINDOW_BYTES.into());
                connection.set_receive_window((CONNECTION_WINDOW_BYTES + 1).into());
            }
            Carried::Tcp(connection) => connection.nudge(),
        }
    }

    /// The peer was told that it may be silent for so long. Over QUIC that was agreed on in the handshake.
    pub fn allow_silence(&self, patience: Duration) {
        if let Carried::Tcp(connection) = &self.0 {
            connection.allow_silence(patience);
        }
    }

    /// Waits until nothing was heard for so long, or the connection is over.
    pub async fn silent_for(&self, patience: Duration) {
        let heard_for = async {
            loop {
                let before = self.heard();
                tokio::time::sleep(patience).await;
                if self.heard() == before {
                    return;
                }
            }
        };
        tokio::select! { () = heard_for => {}, _ = self.closed() => {} }
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        match &self.0 {
            Carried::Quic(connection, _) => {
                let path = connection.stats().path;
                Counts {
                    window_bytes: path.cwnd,
                    sent_packets: path.sent_packets,
                    lost_packets: path.lost_packets,
                }
            }
            Carried::Tcp(_) => Counts::default(),
        }
    }

    /// The certificates that the other end showed, its own first.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        match &self.0 {
            Carried::Quic(connection, _) => {
                let shown = connection.peer_identity().and_then(|any| any.downcast().ok());
                shown.map(|boxed| *boxed).unwrap_or_default()
            }
            Carried::Tcp(connection) => connection.peer_certificates().to_vec(),
        }
    }

    /// Which protocol was agreed on, by its name over QUIC.
    pub fn protocol(&self) -> Option<Vec<u8>> {
        use quinn::crypto::rustls::HandshakeData;
        match &self.0 {
            Carried::Quic(connection, _) => {
                connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
            }
            Carried::Tcp(connection) => alpn_from_tcp(connection.protocol()).map(<[u8]>::to_vec),
        }
    }

    /// Goes on from another UDP port, for the path by the old one may be dead: whoever translates
    /// addresses on the way has forgotten it. `false` where there is no such thing.
    ///
    /// # Errors
    /// No other port.
    pub fn change_path(&self) -> io::Result<bool> {
        match &self.0 {
            Carried::Quic(connection, Some(endpoint)) => {
                let local = quic::local_address_for(connection.remote_address());
                endpoint.rebind(quic::socket(local)?.into())?;
                Ok(true)
            }
            Carried::Quic(_, None) | Carried::Tcp(_) => Ok(false),
        }
    }
}

fn halves((send, receive): (tcp::SendStream, tcp::RecvStream)) -> (SendStream, RecvStream) {
    (SendStream(Sending::Tcp(send)), RecvStream(Receiving::Tcp(receive)))
}

/// The sending half of a stream. Dropped, it ends the stream in order.
#[derive(Debug)]
pub struct SendStream(Sending);

#[derive(Debug)]
enum Sending {
    Quic(quinn::SendStream),
    Tcp(tcp::SendStream),
}

impl SendStream {
    /// How urgent what is sent from now on is.
    pub fn set_priority(&self, priority: Priority) {
        match &self.0 {
            // Fresh streams have 0. It fails only for a stream that is closed already.
            Sending::Quic(stream) => {
                drop(stream.set_priority(priority as i32 - Priority::Answer as i32));
            }
            Sending::Tcp(stream) => stream.set_priority(priority),
        }
    }

    /// Sends a piece, whole.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), LinkError> {
        match &mut self.0 {
            Sending::Quic(stream) => Ok(stream.write_chunk(chunk).await?),
            Sending::Tcp(stream) => stream.write_chunk(chunk).await,
        }
    }

    /// Sends bytes that somebody else holds.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.write_chunk(Bytes::copy_from_slice(bytes)).await
    }

    /// Sends pieces, one after the other.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), LinkError> {
        match &mut self.0 {
            Sending::Quic(stream) => Ok(stream.write_all_chunks(chunks).await?),
            Sending::Tcp(stream) => {
                for chunk in chunks {
                    stream.write_chunk(std::mem::take(chunk)).await?;
                }
                Ok(())
            }
        }
    }

    /// Nothing more is sent.
    ///
    /// # Errors
    /// The stream is over already.
    pub fn finish(&mut self) -> Result<(), LinkError> {
        let finished = match &mut self.0 {
            Sending::Quic(stream) => stream.finish().is_ok(),
            Sending::Tcp(stream) => stream.finish(),
        };
        finished.then_some(()).ok_or(LinkError::Ended)
    }

    /// Gives up sending; what waits is thrown away. Nothing where the stream is over already.
    pub fn reset(&mut self, code: ProblemCode) {
        match &mut self.0 {
            Sending::Quic(stream) => drop(stream.reset(code.number().into())),
            Sending::Tcp(stream) => stream.reset(code),
        }
    }

    /// Waits until the peer wants no more, and gives its code, or until all of it has arrived.
    ///
    /// # Errors
    /// The connection is over, or the stream was given up here.
    pub async fn stopped(&self) -> Result<Option<ProblemCode>, LinkError> {
        match &self.0 {
            Sending::Quic(stream) => match stream.stopped().await {
                Ok(code) => Ok(code.map(code_of)),
                Err(quinn::StoppedError::ConnectionLost(ended)) => Err(Ended::from(ended).into()),
                Err(quinn::StoppedError::ZeroRttRejected) => Err(LinkError::Ended),
            },
            Sending::Tcp(stream) => stream.stopped().await,
        }
    }
}

/// The receiving half of a stream. Dropped, it tells the peer that nothing more is read.
#[derive(Debug)]
pub struct RecvStream(Receiving);

#[derive(Debug)]
enum Receiving {
    Quic(quinn::RecvStream),
    Tcp(tcp::RecvStream),
}

impl RecvStream {
    /// The next bytes, at most so many; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        match &mut self.0 {
            Receiving::Quic(stream) => {
                Ok(stream.read_chunk(max, true).await?.map(|chunk| chunk.bytes))
            }
            Receiving::Tcp(stream) => stream.read_chunk(max).await,
        }
    }

    /// Fills `bytes`; how many there were before the end of the stream, if that came first.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, LinkError> {
        let mut have = 0;
        while have < bytes.len() {
            let Some(chunk) = self.read_chunk(bytes.len() - have).await? else { break };
            bytes[have..have + chunk.len()].copy_from_slice(&chunk);
            have += chunk.len();
        }
        Ok(have)
    }

    /// All that comes until the end of the stream, if that is no more than `max` bytes.
    ///
    /// # Errors
    /// The stream or the connection is over; more came.
    pub async fn read_to_end(&mut self, max: usize) -> Result<Vec<u8>, LinkError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.read_chunk(max).await? {
            all.extend_from_slice(&chunk);
            if all.len() > max {
                return Err(LinkError::Ended);
            }
        }
        Ok(all)
    }

    /// Nothing more is read: the peer is told, unless it has ended the stream.
    pub fn stop(&mut self, code: ProblemCode) {
        match &mut self.0 {
            // It fails only when everything was read.
            Receiving::Quic(stream) => drop(stream.stop(code.number().into())),
            Receiving::Tcp(stream) => stream.stop(code),
        }
    }

    /// Waits until the peer gives up sending, and gives its code; `None` if it ended in order.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn received_reset(&mut self) -> Result<Option<ProblemCode>, LinkError> {
        match &mut self.0 {
            Receiving::Quic(stream) => match stream.received_reset().await {
                Ok(code) => Ok(code.map(code_of)),
                Err(quinn::ResetError::ConnectionLost(ended)) => Err(Ended::from(ended).into()),
                Err(quinn::ResetError::ZeroRttRejected) => Err(LinkError::Ended),
            },
            Receiving::Tcp(stream) => stream.received_reset().await,
        }
    }
}
