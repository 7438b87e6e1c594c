//! The sites of the fleet, while this process lives: devices say anew where they are when they connect.

use fleet::sites::NotTaken;
use protocol::id::{DeviceId, SiteName, TenantName};
use protocol::wire::{Peer, PeerOffer};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Changes within this are told together: a site that comes back does so one by one.
pub(super) const TOGETHER: Duration = Duration::from_millis(500);

/// Which devices may carry chunks to each other.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    sites: Mutex<fleet::sites::Sites>,
    changed: watch::Sender<u64>,
}

/// Why an offer is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoOffer {
    #[error("the site or its address cannot be read")]
    Unreadable,
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

impl Sites {
    fn lock(&self) -> MutexGuard<'_, fleet::sites::Sites> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|change| *change += 1);
    }

    /// Hears of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A device offers to serve its site, or says nothing of that any more.
    pub(super) fn hear(
        &self,
        device: &DeviceId,
        tenant: &TenantName,
        offer: Option<&PeerOffer>,
    ) -> Result<(), NoOffer> {
        let Some(offer) = offer else {
            self.deny(device);
            return Ok(());
        };
        let site: SiteName = offer.site.parse().map_err(|_| NoOffer::Unreadable)?;
        let address: SocketAddr = offer.address.parse().map_err(|_| NoOffer::Unreadable)?;
        let now = Instant::now();
        if self.lock().handle_offer(device, tenant, &site, address, now)? {
            self.tell();
        }
        Ok(())
    }

    /// Its connection ended.
    pub(super) fn left(&self, device: &DeviceId) {
        self.lock().handle_left(device, Instant::now());
    }

    /// It is nobody's peer any more.
    pub(crate) fn deny(&self, device: &DeviceId) {
        if self.lock().handle_denied(device) {
            self.tell();
        }
    }

    /// The peers of a device.
    pub(super) fn peers(&self, device: &DeviceId) -> Vec<Peer> {
        let peers = self.lock().peers(device, Instant::now()).into_iter();
        let peer = |(device, address): (DeviceId, SocketAddr)| Peer {
            device: device.to_string(),
            address: address.to_string(),
        };
        peers.map(peer).collect()
    }
}
