//! The connection to the control node, kept up, over QUIC wherever that works.

use super::nodes::Nodes;
use super::renew::Bells;
use super::way::Own;
use super::{Link, Uplink, UplinkError, Way, control, explained, time};
use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::identity::IdentityFiles;
use ::link::connection::{Connection, Ended};
use ::link::device::Told;
use ::link::frames::LinkError;
use ::link::quic::IDLE_TIMEOUT;
use ::link::tls;
use edge::backoff::Backoff;
use protocol::carrier::Carrier;
use protocol::problem::ProblemCode;
use protocol::wire::{DesiredState, ReportedState};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};

/// How often the time is asked for on a connection that stays.
const TIME_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Keeps the connection up.
pub(crate) struct Keeper {
    pub(crate) way: Way,
    pub(crate) identity: IdentityFiles,
    pub(crate) policy: config::Link,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) desired: watch::Sender<Option<DesiredState>>,
    pub(crate) reported: watch::Receiver<ReportedState>,
    /// What evidence is of.
    pub(crate) engine: Arc<Engine>,
}

/// How the service of a connection came to its end.
enum Served {
    /// The control stream ended.
    Ended,
    /// There is a better one.
    Better(Link),
}

impl Keeper {
    /// The uplink, and the task that keeps it up until it is dropped.
    pub(crate) fn start(self) -> (Uplink, impl Future<Output = ()>) {
        let (sender, control) = watch::channel(None);
        let nodes = Nodes::open(&self.identity, &self.policy, &self.clock, &self.counters);
        let bulk = Arc::new(Bulk {
            way: self.way.clone(),
            identity: self.identity.clone(),
            clock: self.clock.clone(),
            current: Mutex::default(),
        });
        let way = self.way.clone();
        let over = Arc::<Notify>::default();
        let uplink = Uplink { control: control.clone(), nodes: nodes.clone(), bulk, way, over };
        let keep_nodes = nodes.keep(self.desired.subscribe(), control);
        let over = uplink.over.clone();
        (uplink, async move {
            let keep = async { tokio::join!(self.run(sender), keep_nodes) };
            tokio::select! { _ = keep => {}, () = over.notified() => {} }
        })
    }

    async fn run(self, sender: watch::Sender<Option<Connection>>) {
        let cap = Duration::from_secs(self.policy.reconnect_max_s.max(1).into());
        let mut backoff = Backoff::new(Duration::from_millis(200), cap);
        loop {
            let why = match self.hold(&sender, &mut backoff).await {
                Ok(()) => "the cloud ended the control stream".to_owned(),
                Err(error) => {
                    if error.is_unauthorised() {
                        self.bells.wanted.notify_one();
                    }
                    explained(&error)
                }
            };
            sender.send_replace(None);
            let delay = backoff.next_delay(u64::from_le_bytes(::link::entropy()));
            self.counters.disconnected(&self.way.address.to_string(), &why, delay.as_millis());
            tokio::time::sleep(delay).await;
        }
    }

    /// Connects and serves the control stream until the connection, or the last of those that took its
    /// place, has ended.
    async fn hold(
        &self,
        sender: &watch::Sender<Option<Connection>>,
        backoff: &mut Backoff,
    ) -> Result<(), UplinkError> {
        let mut link = self.connect().await?;
        loop {
            self.follow(&link)?;
            let served = self.serve(&link, sender, backoff).await;
            if let Ok(Served::Better(better)) = served {
                link = better; // requests leave the old one by themselves: `nodes` closes it
                continue;
            }
            link.connection.close(ProblemCode::None, "");
            return served.map(drop);
        }
    }

    async fn connect(&self) -> Result<Link, UplinkError> {
        let (trust, own) = (tls::Trust::Ca(vec![self.identity.ca()?]), self.identity.tls()?);
        self.way.connect(trust, Some(own), protocol::ALPN_AGENT, &self.clock).await
    }

    /// Goes with the fleet CA where another one took its place, and asks it for a certificate.
    fn follow(&self, link: &Link) -> Result<(), UplinkError> {
        if self.identity.follow(&link.connection.peer_certificates())? {
            self.counters.fleet_ca_changed();
            self.bells.wanted.notify_one();
        }
        Ok(())
    }

    /// Waits for a certificate of another CA, and shows it on a connection: until then the cloud has to
    /// believe the old one.
    async fn reissued(&self) -> Link {
        loop {
            self.bells.reissued.notified().await;
            if let Ok(link) = self.connect().await {
                return link; // else the next connection shows it
            }
        }
    }

    async fn serve(
        &self,
        link: &Link,
        sender: &watch::Sender<Option<Connection>>,
        backoff: &mut Backoff,
    ) -> Result<Served, UplinkError> {
        let connection = &link.connection;
        let mut reported = self.reported.clone();
        let carrier = connection.carrier();
        let why = self.way.why(carrier);
        // Until somebody watches over it, silence ends the connection after as long as it always did.
        let mut stream = tokio::select! {
            stream = control::open(connection, why, &mut reported) => stream?,
            () = connection.silent_for(IDLE_TIMEOUT) => return Err(LinkError::from(Ended::Silent).into()),
        };
        // Only now is it known that the cloud accepts this device.
        self.desired.send_replace(Some(stream.first().clone()));
        sender.send_replace(Some(connection.clone()));
        backoff.reset();
        self.counters.connected(&self.way.address.to_string(), carrier.as_str(), why);
        let mut told = Told::new(self.engine.clone(), self.desired.subscribe());
        let own = || Own::read(&self.identity).ok();
        tokio::select! {
            result = control::serve(&mut stream, &self.desired, &mut reported, &mut told) => {
                result?;
                Ok(Served::Ended)
            }
            better = self.way.better(connection, own, &self.clock) => Ok(Served::Better(better)),
            fresh = self.reissued() => Ok(Served::Better(fresh)),
            () = self.keep_time(link) => Ok(Served::Ended),
        }
    }

    /// Counters drift and clouds' clocks are set, so a long connection asks again and again. What
    /// is refused is counted; the connection was good when it began.
    async fn keep_time(&self, link: &Link) {
        loop {
            tokio::time::sleep(TIME_PERIOD).await;
            let _ = time::settle(&link.connection, &link.ca, &self.clock).await;
        }
    }
}

/// The connection for what is large and can wait. Over TCP a lost packet holds up whatever comes behind
/// it, so a download must not share a connection with answers.
pub(super) struct Bulk {
    way: Way,
    identity: IdentityFiles,
    clock: Arc<Clock>,
    /// The one that is in use, and beside which it was made.
    current: Mutex<(usize, Weak<Connection>)>,
}

impl Bulk {
    /// The connection to use beside this one. Over TCP it lives as long as somebody uses it.
    pub(super) async fn beside(
        &self,
        control: &Connection,
    ) -> Result<Arc<Connection>, UplinkError> {
        if control.carrier() == Carrier::Quic {
            return Ok(Arc::new(control.clone()));
        }
        let mut current = self.current.lock().await;
        let (beside, used) = &*current;
        if let Some(used) = used.upgrade()
            && *beside == control.stable_id()
            && used.close_reason().is_none()
        {
            return Ok(used);
        }
        let own = Own::read(&self.identity)?;
        let link = self.way.connect_beside(Carrier::Tcp, own, &self.clock).await?;
        let connection = Arc::new(link.connection);
        *current = (control.stable_id(), Arc::downgrade(&connection));
        Ok(connection)
    }
}
