//! A UDP relay between a device and its cloud that does to packets what a [`Profile`] says: delay,
//! jitter, and with it other orders, loss, duplicates, outages. Decided by a seed.

use crate::network::{Profile, Random};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};

const PACKET_MAX_BYTES: usize = 65_536;

/// What it does now, and what it did.
struct State {
    profile: Mutex<(Profile, Instant)>,
    random: Mutex<Random>,
    passed: AtomicU64,
    lost: AtomicU64,
}

/// A running relay; it ends with the value.
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

impl Relay {
    /// Relays whatever is sent to a free loopback port.
    ///
    /// # Errors
    /// No socket.
    pub fn start(cloud: SocketAddr, profile: Profile, seed: u64) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let front = runtime.block_on(UdpSocket::bind("127.0.0.1:0"))?;
        let address = front.local_addr()?;
        let state = Arc::new(State {
            profile: Mutex::new((profile, Instant::now())),
            random: Mutex::new(Random::new(seed)),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        runtime.spawn(serve(Arc::new(front), cloud, state.clone()));
        Ok(Self { address, state, _runtime: runtime })
    }

    /// Where devices send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the link is like this.
    pub fn set(&self, profile: Profile) {
        *locked(&self.state.profile) = (profile, Instant::now());
    }

    /// From now on the link is like this, and goes on by these numbers.
    pub fn begin(&self, profile: Profile, random: Random) {
        *locked(&self.state.random) = random;
        self.set(profile);
    }

    /// Packets that passed, and that did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.passed.load(Relaxed), self.state.lost.load(Relaxed))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each device has a socket of its own towards the cloud, by which answers find back.
async fn serve(front: Arc<UdpSocket>, cloud: SocketAddr, state: Arc<State>) {
    let mut back: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; PACKET_MAX_BYTES];
    loop {
        let Ok((length, device)) = front.recv_from(&mut buffer).await else { continue };
        let socket = match back.get(&device) {
            Some(socket) => socket.clone(),
            None => {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                let socket = Arc::new(socket);
                tokio::spawn(answer(socket.clone(), front.clone(), device, state.clone()));
                back.insert(device, socket.clone());
                socket
            }
        };
        state.pass(&buffer[..length], &socket, cloud);
    }
}

async fn answer(
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    device: SocketAddr,
    state: Arc<State>,
) {
    let mut buffer = vec![0; PACKET_MAX_BYTES];
    loop {
        // An error tells of an earlier packet that nobody took.
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        state.pass(&buffer[..length], &front, device);
    }
}

impl State {
    fn pass(&self, packet: &[u8], socket: &Arc<UdpSocket>, to: SocketAddr) {
        let (profile, since) = *locked(&self.profile);
        let mut random = locked(&self.random);
        let twice = random.chance(profile.duplicate);
        for _ in 0..1 + u8::from(twice) {
            let took = profile.packet(&mut random);
            let Some(took) = took.filter(|_| !profile.is_down(since.elapsed())) else {
                self.lost.fetch_add(1, Relaxed);
                continue;
            };
            self.passed.fetch_add(1, Relaxed);
            let (packet, socket) = (packet.to_vec(), socket.clone());
            tokio::spawn(async move {
                tokio::time::sleep(took).await;
                // What the other end does not take is lost, as on any link.
                let _ = socket.send_to(&packet, to).await;
            });
        }
    }
}
