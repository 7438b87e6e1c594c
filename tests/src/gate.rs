//! Between a device and its cloud, on one port for TCP and UDP, as a firewall and a NAT are: UDP can be
//! swallowed, mappings of addresses can be forgotten, and an old port of a device can be shut for good.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

const PACKET_MAX_BYTES: usize = 65_536;
/// A free port for TCP may be taken for UDP.
const ATTEMPTS: usize = 16;

/// What the device's packets become on the other side.
struct Mapping {
    socket: Arc<UdpSocket>,
    answers: JoinHandle<()>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

struct State {
    udp_open: AtomicBool,
    mappings: Mutex<HashMap<SocketAddr, Mapping>>,
    shut: Mutex<HashSet<SocketAddr>>,
    connections: AtomicU64,
}

/// A running gate; it ends with the value.
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

impl Gate {
    /// Lets everything through between a free loopback port and a cloud.
    ///
    /// # Errors
    /// No socket.
    pub fn open(cloud: SocketAddr) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (tcp, udp) = runtime.block_on(bind())?;
        let address = tcp.local_addr()?;
        let state = Arc::new(State {
            udp_open: AtomicBool::new(true),
            mappings: Mutex::default(),
            shut: Mutex::default(),
            connections: AtomicU64::new(0),
        });
        runtime.spawn(carry_tcp(tcp, cloud, state.clone()));
        runtime.spawn(carry_udp(Arc::new(udp), cloud, state.clone()));
        Ok(Self { address, state, _runtime: runtime })
    }

    /// Where devices go.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Lets UDP through from now on, or swallows it.
    pub fn set_udp(&self, open: bool) {
        self.state.udp_open.store(open, SeqCst);
    }

    /// Forgets which device has which address, as a NAT does that was restarted: the cloud sees the
    /// next packet come from another port, and what it sends to the old one gets lost.
    pub fn forget(&self) {
        locked(&self.state.mappings).clear();
    }

    /// Lets nothing more through from the ports that devices use now.
    pub fn shut_ports_in_use(&self) {
        let mut mappings = locked(&self.state.mappings);
        locked(&self.state.shut).extend(mappings.drain().map(|(device, _)| device));
    }

    /// TCP connections that came through until now.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(SeqCst)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn bind() -> std::io::Result<(TcpListener, UdpSocket)> {
    let mut last = Err(std::io::ErrorKind::AddrInUse.into());
    for _ in 0..ATTEMPTS {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) => last = Err(error),
        }
    }
    last
}

async fn carry_tcp(listener: TcpListener, cloud: SocketAddr, state: Arc<State>) {
    loop {
        let Ok((mut device, _)) = listener.accept().await else { continue };
        state.connections.fetch_add(1, SeqCst);
        tokio::spawn(async move {
            let mut there = TcpStream::connect(cloud).await?;
            tokio::io::copy_bidirectional(&mut device, &mut there).await
        });
    }
}

async fn carry_udp(front: Arc<UdpSocket>, cloud: SocketAddr, state: Arc<State>) {
    let mut buffer = vec![0; PACKET_MAX_BYTES];
    loop {
        // An error tells of an earlier packet that nobody took.
        let Ok((length, device)) = front.recv_from(&mut buffer).await else { continue };
        if !state.udp_open.load(SeqCst) || locked(&state.shut).contains(&device) {
            continue;
        }
        let known = locked(&state.mappings).get(&device).map(|mapping| mapping.socket.clone());
        let socket = match known {
            Some(socket) => socket,
            None => {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                let socket = Arc::new(socket);
                let answers = carry_back(socket.clone(), front.clone(), device, state.clone());
                let mapping = Mapping { socket: socket.clone(), answers: tokio::spawn(answers) };
                locked(&state.mappings).insert(device, mapping);
                socket
            }
        };
        let _ = socket.send_to(&buffer[..length], cloud).await; // lost, as on any link
    }
}

async fn carry_back(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    device: SocketAddr,
    state: Arc<State>,
) {
    let mut buffer = vec![0; PACKET_MAX_BYTES];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        if state.udp_open.load(SeqCst) {
            let _ = front.send_to(&buffer[..length], device).await; // lost, as on any link
        }
    }
}
