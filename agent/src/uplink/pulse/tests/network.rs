//! A network between one device and its cloud, in virtual time: it delays, loses, drops what is too large for it, and has a
//! NAT that forgets. Every packet is counted as it would be paid for.

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// IPv4 and UDP.
const HEADERS_BYTES: u64 = 20 + 8;
/// The largest packet, as over a mobile network or a DSL line: less than an Ethernet's.
const PACKET_MAX_BYTES: u64 = 1_428;
/// One way.
const DELAY: Duration = Duration::from_millis(20);
/// One packet in so many is lost.
const LOST_ONE_IN: u64 = 200;

/// Bytes of whole packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Paid {
    pub(super) up_bytes: u64,
    pub(super) down_bytes: u64,
    pub(super) packets: u64,
}

impl Paid {
    pub(super) fn bytes(self) -> u64 {
        self.up_bytes + self.down_bytes
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            up_bytes: self.up_bytes - before.up_bytes,
            down_bytes: self.down_bytes - before.down_bytes,
            packets: self.packets - before.packets,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Device,
    Cloud,
}

#[derive(Default)]
struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

struct State {
    device: Inbox,
    cloud: Inbox,
    paid: Paid,
    /// The NAT: after so long without a packet from inside it forgets.
    mapping: Duration,
    public_port: u16,
    used_at: Instant,
    random: u64,
}

/// The network.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<State>>);

impl Network {
    pub(super) fn new(mapping: Duration, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            device: Inbox::default(),
            cloud: Inbox::default(),
            paid: Paid::default(),
            mapping,
            public_port: 20_000,
            used_at: Instant::now(),
            random: seed,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn paid(&self) -> Paid {
        self.state().paid
    }

    pub(super) fn device(&self) -> Arc<Socket> {
        Arc::new(Socket { network: self.clone(), end: End::Device })
    }

    pub(super) fn cloud(&self) -> Arc<Socket> {
        Arc::new(Socket { network: self.clone(), end: End::Cloud })
    }

    /// Where the cloud listens.
    pub(super) fn address() -> SocketAddr {
        "192.0.2.1:8443".parse().unwrap()
    }

    fn send(&self, from: End, to: SocketAddr, payload: &[u8]) {
        let mut state = self.state();
        let bytes = payload.len() as u64 + HEADERS_BYTES;
        state.paid.packets += 1;
        let now = Instant::now();
        let known = now.duration_since(state.used_at) < state.mapping;
        let source = match from {
            End::Device => {
                state.paid.up_bytes += bytes;
                if !known {
                    state.public_port =
                        if state.public_port == 60_000 { 20_000 } else { state.public_port + 1 };
                }
                state.used_at = now;
                SocketAddr::from(([198, 51, 100, 7], state.public_port))
            }
            End::Cloud => {
                state.paid.down_bytes += bytes;
                if !known || to.port() != state.public_port {
                    return; // nobody inside is known for this
                }
                Self::address()
            }
        };
        if bytes > PACKET_MAX_BYTES || state.draw().is_multiple_of(LOST_ONE_IN) {
            return;
        }
        drop(state);
        let (network, payload) = (self.clone(), payload.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            let mut state = network.state();
            let inbox = match from {
                End::Device => &mut state.cloud,
                End::Cloud => &mut state.device,
            };
            inbox.packets.push_back((source, payload));
            let waker = inbox.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        });
    }
}

impl State {
    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// One end's socket.
pub(super) struct Socket {
    network: Network,
    end: End,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({:?})", self.end)
    }
}

/// There always is room.
#[derive(Debug)]
struct Ready;

impl UdpPoller for Ready {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Ready)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.send(self.end, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.state();
        let inbox = match self.end {
            End::Device => &mut state.device,
            End::Cloud => &mut state.cloud,
        };
        let Some((addr, packet)) = inbox.packets.pop_front() else {
            inbox.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        buffers[0][..packet.len()].copy_from_slice(&packet);
        let (len, stride) = (packet.len(), packet.len());
        meta[0] = RecvMeta { addr, len, stride, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(match self.end {
            End::Device => SocketAddr::from(([10, 0, 0, 2], 5_000)),
            End::Cloud => Network::address(),
        })
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
