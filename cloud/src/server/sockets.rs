//! One port number for TCP and UDP.

use quinn::Endpoint;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// A free TCP port may be taken for UDP: so many are tried when any port will do.
const ATTEMPTS: u32 = 16;

/// Binds both. With port 0 the system chooses the TCP port, and UDP takes the same number.
pub(super) fn bind(
    address: SocketAddr,
    config: &quinn::ServerConfig,
    reset_key: &[u8; 32],
) -> io::Result<(TcpListener, Endpoint)> {
    let attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    let mut last = bind_once(address, config, reset_key);
    for _ in 1..attempts {
        match &last {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                last = bind_once(address, config, reset_key);
            }
            _ => break,
        }
    }
    last
}

fn bind_once(
    address: SocketAddr,
    config: &quinn::ServerConfig,
    reset_key: &[u8; 32],
) -> io::Result<(TcpListener, Endpoint)> {
    let tcp = TcpListener::bind(address)?;
    tcp.set_nonblocking(true)?;
    let endpoint = link::quic::listener(tcp.local_addr()?, config.clone(), reset_key)?;
    Ok((tcp, endpoint))
}
