//! QUIC endpoints with every limit set: quinn's own defaults leave the memory of a connection
//! unbounded and never notice a peer that is gone.

mod batches;

use batches::Batches;
use protocol::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_AT_FIRST};
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, Runtime, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

/// A silent peer is given up after this long, where signs of life are sent steadily.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A steady sign of life: three may get lost before a silent peer is given up.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// How long a device may be silent, which decides by itself when it gives a sign of life. The shorter of both ends'
/// patience holds (RFC 9000 section 10.1), so whoever wants less says so.
pub const DEVICE_PATIENCE: Duration = Duration::from_secs(180);
/// How often a larger datagram is tried on a way that took none before: each time costs some packets of full size from
/// both ends, which every ten minutes would be more than all else that an idle device sends.
const MTU_TRIED_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Connection attempts that may wait for an answer.
pub const INCOMING_MAX: usize = 1024;
/// Asked of the operating system for each direction of the UDP socket.
const UDP_BUFFER_BYTES: usize = 8 << 20;
/// The largest datagram. Quinn hands up to ten to the system at a time, which takes 65,507 bytes: of larger
/// ones whole batches would be refused, as if they had been lost.
const DATAGRAM_MAX_BYTES: u16 = 65_507 / 10;
/// What every route takes that QUIC can use (RFC 9000 section 14).
const DATAGRAM_MIN_BYTES: u16 = 1200;
/// An Ethernet's packet, where the system does not say what a route takes.
const ETHERNET_BYTES: u32 = 1500;

/// BBR, because it does not take every lost packet for congestion: at 40 ms, 2 % loss and 64 requests in
/// flight (`cargo xtask bench wan`), p99 was 83 ms with it and 201 with Cubic, and a download beside them
/// ran at 6.4 and 0.2 MB/s. Fewer acknowledgements saved no CPU on loopback (`bench link`); segmentation
/// offload, which is on, halves it.
///
/// Datagrams grow to what the way takes, at most `datagram_bytes`, and what the peer announced.
fn transport(datagram_bytes: u16, patience: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(datagram_bytes).interval(MTU_TRIED_EVERY);
    let idle = IdleTimeout::try_from(patience.min(DEVICE_PATIENCE)).expect("minutes fit");
    transport
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_AT_FIRST))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    transport
}

/// How it is seen that the other end of a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// By itself: a sign of life goes there every [`KEEP_ALIVE`].
    Steady,
    /// Whoever has the connection asks for signs of life ([`crate::connection::Connection::nudge`]).
    Paced {
        /// A peer that is silent for so long is given up.
        patience: Duration,
    },
}

impl Life {
    /// After how long a silence a peer is given up.
    pub fn patience(self) -> Duration {
        match self {
            Self::Steady => IDLE_TIMEOUT,
            Self::Paced { patience } => patience,
        }
    }

    /// How often a sign of life is asked for without anybody's doing.
    pub fn keep_alive(self) -> Option<Duration> {
        (self == Self::Steady).then_some(KEEP_ALIVE)
    }
}

/// The client's side of a QUIC connection to `remote`.
///
/// # Errors
/// A TLS configuration without the cipher suite that QUIC begins with.
pub fn client(
    tls: rustls::ClientConfig,
    remote: SocketAddr,
    life: Life,
) -> Result<quinn::ClientConfig, NoInitialCipherSuite> {
    let mut transport = transport(datagram_bytes(remote), life.patience());
    // The cloud opens no streams, so that an agent need not receive any.
    transport.keep_alive_interval(life.keep_alive()).max_concurrent_bidi_streams(0u32.into());
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The server's side of QUIC connections.
///
/// # Errors
/// A TLS configuration without the cipher suite that QUIC begins with.
pub fn server(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    let crypto = Arc::new(QuicServerConfig::try_from(tls)?);
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config.transport_config(Arc::new(transport(DATAGRAM_MAX_BYTES, DEVICE_PATIENCE)));
    config.max_incoming(INCOMING_MAX);
    Ok(config)
}

/// An endpoint on a UDP socket with large buffers, for connecting to `remote`. It announces what the
/// route there takes, so that the other end need not look for more.
///
/// # Errors
/// No socket.
pub fn endpoint(remote: SocketAddr) -> io::Result<Endpoint> {
    open(local_address_for(remote), EndpointConfig::default(), datagram_bytes(remote), None)
}

/// The same for a device whose way to `remote` begins with an Ethernet, wherever this process runs: loopback takes
/// datagrams four times as large, for which both ends keep buffers.
///
/// # Errors
/// No socket.
pub fn endpoint_on_ethernet(remote: SocketAddr) -> io::Result<Endpoint> {
    let datagram_bytes = datagram_of(ETHERNET_BYTES, remote);
    open(local_address_for(remote), EndpointConfig::default(), datagram_bytes, None)
}

/// An endpoint that accepts. With the same `reset_key` after a restart it can tell the peers of
/// its former self that their connections are gone (stateless reset, RFC 9000 section 10.3), so
/// that they need not wait for the idle timeout.
///
/// # Errors
/// The address cannot be bound.
pub fn listener(
    bind: SocketAddr,
    server: quinn::ServerConfig,
    reset_key: &[u8; 32],
) -> io::Result<Endpoint> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    open(bind, EndpointConfig::new(Arc::new(key)), DATAGRAM_MAX_BYTES, Some(server))
}

fn open(
    bind: SocketAddr,
    mut config: EndpointConfig,
    datagram_bytes: u16,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Endpoint> {
    config.max_udp_payload_size(datagram_bytes).expect("QUIC's least is less");
    let socket = TokioRuntime.wrap_udp_socket(socket(bind)?.into())?;
    let socket = match &server {
        Some(_) => Arc::new(Batches::new(socket)),
        None => socket,
    };
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime))
}

/// A UDP socket with large buffers.
pub(crate) fn socket(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less: that costs speed, not function.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    tell_if_small(&socket);
    socket.bind(&bind.into())?;
    Ok(socket)
}

/// Says once what the system granted, where that was less.
fn tell_if_small(socket: &Socket) {
    static TOLD: Once = Once::new();
    // Linux counts its own bookkeeping in, twice what was granted.
    let counted = if cfg!(any(target_os = "linux", target_os = "android")) { 2 } else { 1 };
    let granted = socket.recv_buffer_size().unwrap_or(0) / counted;
    if granted < UDP_BUFFER_BYTES {
        TOLD.call_once(|| {
            tracing::info!(
                granted_bytes = granted,
                wanted_bytes = UDP_BUFFER_BYTES,
                hint = "raise net.core.rmem_max and net.core.wmem_max where the link is fast",
                "UDP has a smaller buffer than wanted"
            );
        });
    }
}

/// How large a datagram may be on the route to `remote`, by what the system knows of it.
fn datagram_bytes(remote: SocketAddr) -> u16 {
    datagram_of(route_bytes(remote).unwrap_or(ETHERNET_BYTES), remote)
}

/// How large a datagram is in a packet of so many bytes.
fn datagram_of(packet: u32, remote: SocketAddr) -> u16 {
    let headers = if remote.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let datagram = u16::try_from(packet.saturating_sub(headers)).unwrap_or(u16::MAX);
    datagram.clamp(DATAGRAM_MIN_BYTES, DATAGRAM_MAX_BYTES)
}

/// The largest packet that the first part of the way takes.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn route_bytes(remote: SocketAddr) -> Option<u32> {
    let socket = std::net::UdpSocket::bind(local_address_for(remote)).ok()?;
    socket.connect(remote).ok()?; // nothing is sent
    let mtu = match remote {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    mtu.ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn route_bytes(_: SocketAddr) -> Option<u32> {
    None
}

/// The wildcard address from which `remote` can be reached.
pub fn local_address_for(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    }
}
