//! Devices of the same site: chunks of models come from them, and go to them, where the owner says so (`[peers]`).
//!
//! The cloud names them, and says it anew whenever that changes; `edge::peers` decides whom to ask and whom to leave
//! alone. Both ends show their certificates and must be named ([`Peers::line`], [`serve`]): who is denied is not, and
//! its connections end. Nobody is told what this device has: a peer names a file by its hash, which it knows from a
//! signed manifest, and hears whether that is here. The names are kept in a file, so that a device that starts
//! without a cloud finds its site.

mod named;
mod serve;

use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::identity::{Enrolment, IdentityError, IdentityFiles};
use crate::serve::PeerStatus;
use crate::uplink::CloudAddress;
use ::link::connection::Connection;
use ::link::peer::{Ends, PeerError};
use ::link::pki::DeviceCertificate;
use ::link::tls::TlsError;
use edge::peers::{Misdeed, Outcome, Uploads};
use edge::time::{NotValid, Validity};
pub(crate) use named::NAMED_FILE;
use named::Named;
use protocol::id::{ContentHash, DeviceId};
use protocol::problem::{ProblemCode, chain};
use protocol::wire::{DesiredState, PeerOffer, ReportedState};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// For a connection and its handshake.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Why a peer is not spoken to.
#[derive(Debug, thiserror::Error)]
enum NotSpoken {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the certificates here")]
    Own(#[from] IdentityError),
    #[error("TLS")]
    Tls(#[from] TlsError),
    #[error("it does not answer")]
    Silent,
    #[error("another device is at its address")]
    Another,
    #[error("its certificate is not valid now: {0}")]
    Certificate(NotValid),
}

/// The peers of this device.
pub(crate) struct Peers {
    settings: config::Peers,
    identity: IdentityFiles,
    /// By the hash of its CA.
    fleet: ContentHash,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    /// What is served.
    bundles: PathBuf,
    known: Mutex<Known>,
    uploads: Mutex<Uploads>,
}

#[derive(Default)]
struct Known {
    standings: edge::peers::Peers,
    named: Named,
    /// Connections to peers that are asked.
    lines: BTreeMap<DeviceId, Connection>,
    /// Connections of peers that ask.
    guests: Vec<(DeviceId, Connection)>,
}

impl Peers {
    /// Those that the cloud named last. `None` where the owner wants none.
    pub(crate) fn open(
        state_dir: &Path,
        settings: &config::Peers,
        (identity, enrolment): (&IdentityFiles, &Enrolment),
        (clock, counters): (&Arc<Clock>, &Arc<Counters>),
    ) -> Option<Arc<Self>> {
        if !settings.enabled {
            return None;
        }
        let peers = Self {
            uploads: Mutex::new(Uploads::new(settings.policy())),
            settings: settings.clone(),
            identity: identity.clone(),
            fleet: enrolment.ca_hash,
            clock: clock.clone(),
            counters: counters.clone(),
            bundles: state_dir.join("bundles"),
            known: Mutex::default(),
        };
        match Named::read(peers.identity.folder(), peers.fleet) {
            Ok(named) => peers.take_over(named),
            Err(error) => peers.counters.peers_not_kept(&error.to_string()),
        }
        Some(Arc::new(peers))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the site, and follows the names of those in it, for ever.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut desired: watch::Receiver<Option<DesiredState>>,
        reported: watch::Sender<ReportedState>,
        cloud: CloudAddress,
    ) {
        let bound = TcpListener::bind(self.settings.listen).await;
        let bound = bound.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (local, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => return self.counters.peers_not_served(self.settings.listen, &error),
        };
        tokio::spawn(self.clone().serve(listener));
        loop {
            if let Some(address) = self.reached_at(local, &cloud).await {
                self.offer(&reported, address);
            }
            if desired.changed().await.is_err() {
                return; // the agent is shutting down
            }
            let named = desired.borrow_and_update().as_ref().map(Named::of);
            if let Some(named) = named {
                self.hear(named);
            }
        }
    }

    fn offer(&self, reported: &watch::Sender<ReportedState>, address: SocketAddr) {
        let site = self.settings.site.to_string();
        let offer = Some(PeerOffer { site, address: address.to_string() });
        reported.send_if_modified(|state| {
            let changed = state.peer != offer;
            state.peer = offer;
            changed
        });
    }

    /// Where peers reach this device: by the address from which the cloud is reached, unless it is said.
    async fn reached_at(&self, local: SocketAddr, cloud: &CloudAddress) -> Option<SocketAddr> {
        if let Some(told) = self.settings.told() {
            return Some(told);
        }
        if !local.ip().is_unspecified() {
            return Some(local);
        }
        let cloud = cloud.resolve().await.ok()?;
        Some(SocketAddr::new(own_address(cloud).ok()?, local.port()))
    }

    fn hear(&self, named: Named) {
        if self.known().named == named {
            return;
        }
        let folder = self.identity.folder();
        if let Err(error) = ::link::durable::aside(|| named.write(folder, self.fleet)) {
            self.counters.peers_not_kept(&error.to_string());
        }
        self.counters.peers_named(named.0.len());
        self.take_over(named);
    }

    /// Whoever is not named any more is not spoken to any more.
    fn take_over(&self, named: Named) {
        let mut known = self.known();
        known.standings.handle_named(named.0.keys().cloned(), Instant::now());
        let stays = |device: &DeviceId, line: &Connection| {
            let is_named = named.0.contains_key(device);
            if !is_named {
                line.close(ProblemCode::Unauthorised, "this device is no peer any more");
            }
            is_named && line.close_reason().is_none()
        };
        known.lines.retain(|device, line| stays(device, line));
        known.guests.retain(|(device, guest)| stays(device, guest));
        known.named = named;
    }

    /// Somebody who may have a blob.
    pub(crate) fn choose(&self, blob: ContentHash) -> Option<DeviceId> {
        let entropy = u64::from_le_bytes(::link::entropy());
        self.known().standings.choose(blob, entropy, Instant::now())
    }

    /// Whether there is anybody to ask, now or later.
    pub(crate) fn is_alone(&self) -> bool {
        self.known().standings.is_empty()
    }

    /// What came of asking it.
    pub(crate) fn handle_outcome(&self, peer: &DeviceId, blob: ContentHash, outcome: Outcome) {
        if let Outcome::Failed(misdeed) = outcome {
            self.counters.peer_failed(peer, misdeed);
            self.known().lines.remove(peer); // closed with its last stream
        }
        self.known().standings.handle_outcome(peer, blob, outcome, Instant::now());
    }

    /// Nothing is asked for now: the places of these connections are others'. What is under way on one keeps it.
    pub(crate) fn hang_up(&self) {
        self.known().lines.clear();
    }

    /// A connection to a peer that is the one that was named.
    pub(crate) async fn line(&self, peer: &DeviceId) -> Result<Connection, Misdeed> {
        let address = {
            let known = self.known();
            let open = known.lines.get(peer).filter(|line| line.close_reason().is_none());
            if let Some(open) = open {
                return Ok(open.clone());
            }
            *known.named.0.get(peer).ok_or(Misdeed::Unreachable)?
        };
        let connected = self.connect(peer, address).await;
        let line = connected.map_err(|error| {
            tracing::debug!(%peer, %address, error = chain(&error), "no connection to a peer");
            Misdeed::Unreachable
        })?;
        self.known().lines.insert(peer.clone(), line.clone());
        Ok(line)
    }

    async fn connect(&self, peer: &DeviceId, address: SocketAddr) -> Result<Connection, NotSpoken> {
        let ends = self.ends()?;
        let connected = tokio::time::timeout(CONNECT_PATIENCE, ends.connect(address)).await;
        let (line, who) = connected.map_err(|_| NotSpoken::Silent)??;
        self.judge(&who)?;
        if who.device == *peer { Ok(line) } else { Err(NotSpoken::Another) }
    }

    /// As the certificate is on the disk now: it is renewed while the agent runs.
    fn ends(&self) -> Result<Ends, NotSpoken> {
        let read = || Ok((self.identity.cas()?, self.identity.tls()?));
        let (cas, own) = ::link::durable::aside(read).map_err(NotSpoken::Own)?;
        Ok(Ends::new(&cas, own)?)
    }

    /// Judges a certificate by what is known of the time.
    fn judge(&self, who: &DeviceCertificate) -> Result<(), NotSpoken> {
        let DeviceCertificate { not_before_s, not_after_s, .. } = *who;
        let validity = Validity { not_before_s, not_after_s };
        validity.check(self.clock.now_s()).map_err(NotSpoken::Certificate)
    }

    /// Bytes of a blob came from a peer.
    pub(crate) fn came(&self, bytes: u64) {
        self.counters.peer_gave(bytes);
    }

    /// How the peers stand, for people.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let known = self.known();
        let resting: BTreeMap<&DeviceId, Misdeed> =
            known.standings.resting(Instant::now()).collect();
        let status = |(device, address): (&DeviceId, &SocketAddr)| PeerStatus {
            device: device.to_string(),
            address: address.to_string(),
            left_alone: resting.get(device).map(|misdeed| misdeed.as_str().to_owned()),
        };
        known.named.0.iter().map(status).collect()
    }
}

/// The address of this device on the way to another. Nothing is sent.
fn own_address(other: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(::link::quic::local_address_for(other))?;
    socket.connect(other)?;
    Ok(socket.local_addr()?.ip())
}
