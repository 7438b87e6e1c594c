//! QUIC endpoints with every limit set: quinn's own defaults leave the memory of a connection
//! unbounded and never notice a peer that is gone.

use protocol::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION};
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A silent peer is given up after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The agent's sign of life: three may get lost before a silent peer is given up, and the shortest mapping
/// of a NAT for UDP that is met with (30 s; RFC 4787 wants 2 minutes) is held.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Connection attempts that may wait for an answer.
pub const INCOMING_MAX: usize = 1024;
/// Asked of the operating system for each direction of the UDP socket.
const UDP_BUFFER_BYTES: usize = 8 << 20;

/// BBR, because it does not take every lost packet for congestion: at 40 ms, 2 % loss and 64 requests in
/// flight (`cargo xtask bench wan`), p99 was 83 ms with it and 201 with Cubic, and a download beside them
/// ran at 6.4 and 0.2 MB/s. Larger packets (8,952 bytes) and fewer acknowledgements saved no CPU on
/// loopback (`bench link`); segmentation offload, which is on, halves it.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("ten seconds fit");
    transport
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_CONNECTION))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    transport
}

/// The client's side of a QUIC connection.
///
/// # Errors
/// A TLS configuration without the cipher suite that QUIC begins with.
pub fn client(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, NoInitialCipherSuite> {
    let mut transport = transport();
    // The cloud opens no streams, so that an agent need not receive any.
    transport.keep_alive_interval(Some(KEEP_ALIVE)).max_concurrent_bidi_streams(0u32.into());
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
    config.transport_config(Arc::new(transport()));
    config.max_incoming(INCOMING_MAX);
    Ok(config)
}

/// An endpoint on a UDP socket with large buffers, for connecting.
///
/// # Errors
/// The address cannot be bound.
pub fn endpoint(bind: SocketAddr) -> io::Result<Endpoint> {
    open(bind, EndpointConfig::default(), None)
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
    open(bind, EndpointConfig::new(Arc::new(key)), Some(server))
}

fn open(
    bind: SocketAddr,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<Endpoint> {
    Endpoint::new(config, server, socket(bind)?.into(), Arc::new(TokioRuntime))
}

/// A UDP socket with large buffers.
pub(crate) fn socket(bind: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less: that costs speed, not function.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
    socket.bind(&bind.into())?;
    Ok(socket)
}

/// The wildcard address from which `remote` can be reached.
pub fn local_address_for(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    }
}
