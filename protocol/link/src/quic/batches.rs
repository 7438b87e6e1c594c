//! How many datagrams of a connection are handed to the system at a time, where one socket has many connections.
//!
//! Quinn keeps a buffer for each connection that holds the largest batch it ever sent, and never gives it back: with ten
//! datagrams to a batch, a device that fetched a model once costs the cloud 26 KiB for as long as it stays. Smaller batches
//! cost CPU (of a download on loopback, three take 1.9 times as much), so they are small only where connections are many.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

/// What the buffers of all connections should take together.
const BUFFERS_BYTES: usize = 4 << 20;
/// A datagram on an Ethernet.
const DATAGRAM_BYTES: usize = 1452;

/// So many datagrams make a batch, where there are so many connections: at least one.
fn most(connections: usize) -> usize {
    (BUFFERS_BYTES / DATAGRAM_BYTES / connections.max(1)).max(1)
}

/// A socket whose connections send smaller batches the more there are.
#[derive(Debug)]
pub(super) struct Batches {
    socket: Arc<dyn AsyncUdpSocket>,
    connections: Arc<AtomicUsize>,
}

impl Batches {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, connections: Arc::default() }
    }
}

/// What one connection waits with until it can send: there is one for each, for as long as it lives.
#[derive(Debug)]
struct Counted {
    poller: Pin<Box<dyn UdpPoller>>,
    connections: Arc<AtomicUsize>,
}

impl UdpPoller for Counted {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poller.as_mut().poll_writable(context)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

impl AsyncUdpSocket for Batches {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.connections.fetch_add(1, Relaxed);
        let poller = self.socket.clone().create_io_poller();
        Box::pin(Counted { poller, connections: self.connections.clone() })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        most(self.connections.load(Relaxed)).min(self.socket.max_transmit_segments())
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::{Runtime, TokioRuntime};

    #[test]
    fn the_more_connections_the_smaller_their_batches() {
        let sizes = [0, 1, 288, 289, 1_000, 2_888, 10_000, usize::MAX].map(most);
        assert_eq!(sizes, [2_888, 2_888, 10, 9, 2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn connections_that_are_gone_do_not_count() {
        let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = TokioRuntime.wrap_udp_socket(own).unwrap();
        let all = own.max_transmit_segments();
        let batches = Arc::new(Batches::new(own));
        let mut pollers: Vec<_> = (0..3_000).map(|_| batches.clone().create_io_poller()).collect();
        assert_eq!(batches.max_transmit_segments(), 1);
        pollers.truncate(1);
        assert_eq!(batches.max_transmit_segments(), all);
    }
}
