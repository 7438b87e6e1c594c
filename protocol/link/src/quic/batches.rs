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

/// Up to so many connections, batches are as large as the system takes them.
const FEW: usize = 256;
/// With more, a batch has so many datagrams at most.
const SMALL: usize = 3;

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
        let most = self.socket.max_transmit_segments();
        if self.connections.load(Relaxed) > FEW { most.min(SMALL) } else { most }
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

    #[tokio::test]
    async fn batches_are_small_only_while_connections_are_many() {
        let own = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = TokioRuntime.wrap_udp_socket(own).unwrap();
        let most = own.max_transmit_segments();
        let batches = Arc::new(Batches::new(own));
        let mut pollers: Vec<_> = (0..FEW).map(|_| batches.clone().create_io_poller()).collect();
        assert_eq!(batches.max_transmit_segments(), most);
        pollers.push(batches.clone().create_io_poller());
        assert_eq!(batches.max_transmit_segments(), most.min(SMALL));
        pollers.clear();
        assert_eq!(batches.max_transmit_segments(), most);
    }
}
