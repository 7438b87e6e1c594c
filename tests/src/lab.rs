//! A network on this machine: two namespaces that see each other only through a relay, which does to IP
//! packets what a [`Link`] says: delay, jitter, loss, duplicates, a rate with a bounded queue, outages.
//! Decided by a seed, and beneath UDP and TCP alike, so that QUIC and TCP lose the same share of packets.
//!
//! It needs root, for namespaces and for the two ends (TUN devices), and leaves nothing behind. Threads
//! are moved into a namespace; what they open, and the programs that they start, stay in it.

mod namespace;
mod pipe;

pub use namespace::{Namespace, Unavailable};
pub use pipe::Link;

use anyhow::Context;
use pipe::Pipe;
use std::net::Ipv4Addr;

/// Where the device is.
pub const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 211, 55, 1);
/// Where it can go, when its address changes.
pub const DEVICE_ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 211, 55, 3);
/// Where the cloud is.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 211, 55, 2);

/// Per namespace, as the thread that writes it sees it.
const TCP_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// The name of each end's device.
const END: &str = "lab0";

/// Both ends, and what is between them.
pub struct Lab {
    /// The device's side.
    pub device: Namespace,
    /// The cloud's side.
    pub cloud: Namespace,
    pipe: Pipe,
}

impl Lab {
    /// Builds it.
    ///
    /// # Errors
    /// [`Unavailable`] where this machine or user cannot have one.
    pub fn build(link: Link, seed: u64) -> anyhow::Result<Self> {
        let (device, device_end) = Namespace::with_end("device", END)?;
        let (cloud, cloud_end) = Namespace::with_end("cloud", END)?;
        for (namespace, address) in [(&device, DEVICE), (&cloud, CLOUD)] {
            namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", END])?;
            namespace.ip(&["link", "set", "lo", "up"])?;
            namespace.ip(&["link", "set", END, "txqueuelen", "1000", "up"])?;
        }
        let pipe = Pipe::start(device_end, cloud_end, link, seed).context("no relay")?;
        Ok(Self { device, cloud, pipe })
    }

    /// What new TCP connections of both sides do about congestion; whether the system has that.
    pub fn set_tcp(&self, congestion: &str) -> bool {
        let set = || std::fs::write(TCP_CONGESTION, congestion).is_ok();
        [&self.device, &self.cloud].iter().all(|side| side.inside(set).is_ok_and(|set| set))
    }

    /// From now on the link is like this.
    pub fn set(&self, link: Link) {
        self.pipe.set(link);
    }

    /// Packets that passed, that were lost at random, and that found the queue full.
    pub fn counts(&self) -> [u64; 3] {
        self.pipe.counts()
    }

    /// Gives the device another address in the place of the one that it has.
    ///
    /// # Errors
    /// The system refuses.
    pub fn move_device(&self, from: Ipv4Addr, to: Ipv4Addr) -> anyhow::Result<()> {
        self.device.ip(&["addr", "del", &format!("{from}/24"), "dev", END])?;
        self.device.ip(&["addr", "add", &format!("{to}/24"), "dev", END])
    }
}
