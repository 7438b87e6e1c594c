//! What is asked of the system for a socket that carries streams.

use socket2::SockRef;
use tokio::net::TcpStream;

/// What is not sent yet and cannot be overtaken any more: about what a fast link takes in a
/// millisecond. Beyond that the streams wait where the most urgent one goes first.
const NOT_SENT_BYTES: u32 = 128 << 10;

/// Sends at once, and keeps little that could be overtaken in the system.
pub fn tune(stream: &TcpStream) {
    // The system may grant less: that costs speed, not function.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT_BYTES);
}
