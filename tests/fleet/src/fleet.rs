//! The fleet: where its cloud is, its devices, and what becomes of them.

use crate::behaviour::{Behaviours, Traits};
use crate::chance::Chance;
use crate::counts::{Counters, Counts};
use crate::device::{self, Device};
use crate::enrolment::{Member, enrol};
use crate::evidence::Counting;
use crate::install::Installer;
use edge::IllegalTransition;
use edge::backoff::Backoff;
use edge::time::{NotValid, RefusedTime};
use futures_util::StreamExt;
use futures_util::stream::{self, TryStreamExt};
use link::device::UntoldTime;
use link::dial::{DialError, Dialler, Target};
use link::frames::LinkError;
use link::pki::PkiError;
use link::quic;
use link::tls::TlsError;
use protocol::id::ContentHash;
use protocol::token::Token;
use protocol::wire::ReportedState;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// UDP sockets that carry the connections of a fleet: a burst for all devices must not meet one socket's buffer.
const SOCKETS: usize = 8;
/// Devices that enrol at a time.
const ENROLLING_MAX: usize = 64;
/// Attempts of one device to enrol.
const ENROL_ATTEMPTS: u32 = 8;

/// Why a fleet is not there.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A UDP socket.
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key or a certificate.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A connection that broke, or a refusal.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No time was told.
    #[error(transparent)]
    Untold(#[from] UntoldTime),
    /// The time is not believed.
    #[error("the cloud's time is not taken: {0}")]
    Time(RefusedTime),
    /// The server's certificate.
    #[error("the cloud's certificate is not valid now: {0}")]
    Certificate(NotValid),
    /// The token names another CA than the server has.
    #[error("the cloud does not show the CA that the token names")]
    NoCa,
    /// A fault in the simulator.
    #[error("a step that the update does not know")]
    Step(#[from] IllegalTransition),
    /// An answer that cannot be one.
    #[error("the cloud's answer makes no sense: {0}")]
    Nonsense(&'static str),
}

/// Where the cloud is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its address.
    pub address: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
}

impl Place {
    /// A cloud whose certificate bears its address.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, server_name: address.ip().to_string() }
    }

    pub(crate) fn target(&self) -> Target {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        Target { host, port, server_name: self.server_name.clone() }
    }
}

/// What devices and versions are like, as far as it is not decided by chance.
#[derive(Debug, Clone)]
pub struct Nature {
    /// How versions behave.
    pub behaviours: Arc<Behaviours>,
    /// Decides the rest, together with a device's id.
    pub seed: u64,
    /// Requests that the median device is asked in a minute.
    pub per_min: f64,
    /// The share of accepted answers that are checked by the cloud.
    pub checked: f64,
    /// Whether devices compare a version with the one before it by themselves.
    pub shadows: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self { behaviours: Arc::default(), seed: 0, per_min: 30.0, checked: 0.01, shadows: true }
    }
}

/// Devices that are members, at work or not yet.
pub struct Fleet {
    place: Arc<Place>,
    endpoints: Vec<quinn::Endpoint>,
    waiting: Vec<Member>,
    nature: Nature,
    running: JoinSet<Result<(), FleetError>>,
    /// What each device that has begun has counted.
    counted: Vec<Arc<Counting>>,
    counters: Arc<Counters>,
}

impl Fleet {
    /// Enrols so many devices with a token that lets in as many.
    ///
    /// # Errors
    /// One of them is refused, or fails again and again.
    pub async fn enrol(place: Place, token: &Token, devices: usize) -> Result<Self, FleetError> {
        let sockets =
            (0..SOCKETS.min(devices.max(1))).map(|_| quic::endpoint_on_ethernet(place.address));
        let endpoints: Vec<_> = sockets.collect::<Result<_, _>>().map_err(FleetError::Socket)?;
        let (place, dial) = (&place, &endpoints);
        let enrolled = stream::iter(0..devices)
            .map(|number| async move {
                let dialler = Dialler::sharing(dial[number % dial.len()].clone());
                enrol_patiently(place, &dialler, token, number).await
            })
            .buffer_unordered(ENROLLING_MAX);
        let waiting = enrolled.try_collect().await?;
        Ok(Self {
            place: Arc::new(place.clone()),
            endpoints,
            waiting,
            nature: Nature::default(),
            running: JoinSet::new(),
            counted: Vec::new(),
            counters: Arc::default(),
        })
    }

    /// The devices that begin from now on are of this nature.
    pub fn set_nature(&mut self, nature: Nature) {
        self.nature = nature;
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has so many more of its devices begin to work; those that do keep connected from now on.
    pub fn start(&mut self, devices: usize) {
        let from = self.waiting.len().saturating_sub(devices);
        for member in self.waiting.split_off(from) {
            let endpoint = self.endpoints[self.running.len() % self.endpoints.len()].clone();
            let (device, installer) = self.device(member, endpoint);
            self.counted.push(device.counting.clone());
            self.running.spawn(async move {
                tokio::select! {
                    end = device.run() => end,
                    end = installer.run() => Ok(end?),
                }
            });
        }
    }

    fn device(&self, member: Member, endpoint: quinn::Endpoint) -> (Device, Installer) {
        let (desired, connection) = (watch::Sender::new(None), watch::Sender::new(None));
        let (report, reported) = watch::channel(ReportedState::default());
        let Nature { behaviours, seed, per_min, checked, shadows } = &self.nature;
        let number = u64::from_str_radix(
            &ContentHash::of(member.id.as_str().as_bytes()).to_string()[..16],
            16,
        );
        let mut chance = Chance::new(*seed, number.unwrap_or(0)); // it is hexadecimal
        let traits = Traits::draw(&mut chance, *per_min, *checked);
        let own = Chance::new(chance.next(), 0);
        let counting = Arc::new(Counting::new(behaviours.clone(), traits.clone(), own));
        let installer = Installer {
            signers: member.signers.clone(),
            connection: connection.subscribe(),
            desired: desired.subscribe(),
            reported: report,
            behaviours: behaviours.clone(),
            shadows: *shadows,
            traits,
            counting: counting.clone(),
            chance,
        };
        let device = Device {
            member,
            place: self.place.clone(),
            dialler: Dialler::sharing(endpoint).paced(device::PATIENCE),
            counters: self.counters.clone(),
            desired,
            reported,
            connection,
            counting,
        };
        (device, installer)
    }

    /// What its devices have seen.
    pub fn counts(&self) -> Counts {
        self.counters.now()
    }

    /// On how many devices this version has ever answered, whatever they say.
    pub fn answered(&self, version: u64) -> usize {
        self.counted.iter().filter(|counting| counting.has_answered(version)).count()
    }
}

async fn enrol_patiently(
    place: &Place,
    dialler: &Dialler,
    token: &Token,
    number: usize,
) -> Result<Member, FleetError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut attempts = 1;
    loop {
        match enrol(place, dialler, token, number).await {
            Err(FleetError::Link(LinkError::Refused(problem))) => {
                return Err(LinkError::Refused(problem).into());
            }
            Err(_) if attempts < ENROL_ATTEMPTS => attempts += 1,
            end => return end,
        }
        tokio::time::sleep(backoff.next_delay(u64::from_le_bytes(link::entropy()))).await;
    }
}
