//! What every connection and every API call shares.

use fleet::load::Load;
use link::connection::Connection;
use link::otlp::Otlp;
use link::traces::Traces;
use protocol::carrier::Carrier;
use protocol::id::DeviceId;
use protocol::limits::AGENT_CONNECTIONS_MAX;
use protocol::problem::ProblemCode;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;
use tokio::sync::{Notify, Semaphore, watch};

use crate::access::Access;
use crate::access_log::AccessLog;
use crate::agents::sites::Sites;
use crate::agents::tcp::OverTcp;
use crate::blobs::Blobs;
use crate::blobs::chunks::Chunks;
use crate::ca::FleetCa;
use crate::deltas::Deltas;
use crate::events::Events;
use crate::metrics::Observed;
use crate::nodes::Nodes;
use crate::questions;
use crate::repository::Repository;
use crate::rollouts::Rollouts;
use crate::server::Engine;
use crate::serving::Serving;
use crate::sign_in::SignIn;
use crate::store::{Database, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::usage::Meter;

/// Connections over HTTPS that may be open at a time.
pub const HTTPS_CONNECTIONS_MAX: usize = 4096;
/// Uploads of blobs that may be in progress at a time.
pub const UPLOADS_MAX: usize = 8;

/// The server's shared state.
pub struct Cloud {
    /// What is remembered.
    pub db: Database,
    /// Who signs certificates.
    pub ca: FleetCa,
    /// The repository's online keys.
    pub repository: Arc<Repository>,
    /// Who may do what.
    pub access: Access,
    /// Where operators sign in, once that was opened; nowhere on an inference node.
    pub(crate) sign_in: OnceLock<SignIn>,
    /// What was asked since it was written down last.
    pub meter: Meter,
    /// The pushed files.
    pub blobs: Blobs,
    /// The same in fewer bytes.
    pub deltas: Arc<Deltas>,
    /// What devices have recorded.
    pub telemetry: Telemetry,
    /// The hashes of their chunks.
    pub(crate) chunks: Chunks,
    /// The cloud variants.
    pub serving: Arc<Serving>,
    /// What runs them.
    pub engine: Engine,
    /// What happened.
    pub events: Arc<Events>,
    /// What became of requests to models.
    pub observed: Observed,
    /// A line for each of them.
    pub access_log: AccessLog,
    /// Where their time went, for those that are traced.
    pub traces: Traces,
    /// The way of all that to a collector.
    pub otlp: Otlp,
    /// Who is connected.
    pub online: Online,
    /// Which devices may carry chunks to each other.
    pub(crate) sites: Sites,
    /// How versions reach devices in stages.
    pub rollouts: Rollouts,
    /// What operators ask of devices.
    pub questions: questions::Open,
    /// Connections that are not over QUIC.
    pub over_tcp: OverTcp,
    /// Which inference nodes are connected.
    pub nodes: Nodes,
    /// How this node stands to its control node; to itself where it is the control node.
    pub control: Control,
    /// How busy this node is.
    load: Mutex<Load>,
    /// What bounds the load.
    pub limits: Limits,
    /// Inference requests that are not answered yet.
    pub in_flight: InFlight,
    /// The revision of the newest desired state.
    pub revision: watch::Sender<u64>,
    /// True once the models that should answer were loaded, or failed to.
    pub warm: AtomicBool,
    /// True once the server was told to end: it goes on for a while, and says that nobody should come.
    pub draining: watch::Sender<bool>,
    /// True once the server takes nothing new.
    pub stopping: watch::Sender<bool>,
}

/// What lies in the data folder, and what is counted of it.
pub(crate) struct Files {
    pub(crate) blobs: Blobs,
    pub(crate) deltas: Arc<Deltas>,
    pub(crate) events: Arc<Events>,
    pub(crate) telemetry: Telemetry,
    pub(crate) rollouts: Rollouts,
}

impl Cloud {
    /// The shared state at the start.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn new(
        db: Database,
        (ca, repository): (FleetCa, Repository),
        Files { blobs, deltas, events, telemetry, rollouts }: Files,
        (serving, engine): (Serving, Engine),
        (access_log, otlp): (AccessLog, Otlp),
    ) -> Result<Arc<Self>, StoreError> {
        let revision = db.call(Store::revision).await?;
        let keys = db.call(Store::api_keys).await?;
        let access = Access::new(keys, db.call(Store::tenants).await?);
        Ok(Arc::new(Self {
            db,
            access,
            sign_in: OnceLock::new(),
            meter: Meter::default(),
            ca,
            repository: Arc::new(repository),
            blobs,
            deltas,
            telemetry,
            chunks: Chunks::default(),
            serving: Arc::new(serving),
            engine,
            events,
            observed: Observed::default(),
            access_log,
            traces: otlp.traces(),
            otlp,
            online: Online::default(),
            sites: Sites::default(),
            rollouts,
            questions: questions::Open::default(),
            over_tcp: OverTcp::default(),
            nodes: Nodes::default(),
            control: Control::default(),
            load: Mutex::default(),
            limits: Limits::default(),
            in_flight: InFlight::default(),
            revision: watch::Sender::new(revision),
            warm: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
        }))
    }

    /// A model ran for so long.
    pub(crate) fn ran(&self, run_us: u64) {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).handle_run(run_us);
    }

    /// How long a request that came now would wait before it runs.
    pub fn wait_us(&self) -> u64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let under_way = self.in_flight.count();
        self.load.lock().unwrap_or_else(PoisonError::into_inner).wait_us(under_way, cores)
    }

    /// Whether new requests should come here.
    pub fn is_ready(&self) -> bool {
        self.unready().is_empty()
    }

    /// Why new requests should not come here; nothing where they should.
    pub fn unready(&self) -> Vec<Unready> {
        let reasons = [
            (Unready::Warming, !self.warm.load(Acquire)),
            (Unready::Draining, *self.draining.borrow()),
            (Unready::NoRuntime, !self.serving.can_run()),
            (Unready::NoWorker, !self.engine.is_ready()),
        ];
        reasons.into_iter().filter(|(_, holds)| *holds).map(|(reason, _)| reason).collect()
    }

    /// A new request is in flight; `None` once the server takes no more. It counts before it looks:
    /// a stopping server either sees it, or is seen.
    pub(crate) fn take_off(&self) -> Option<Flying<'_>> {
        let flying = self.in_flight.enter();
        (!*self.stopping.borrow()).then_some(flying)
    }

    /// Tells every connected agent that its desired state may have changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn publish_desired(&self) -> Result<(), StoreError> {
        let revision = self.db.call(Store::revision).await?;
        self.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        });
        Ok(())
    }
}

/// Why new requests should not come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// Models that should answer are still being loaded.
    Warming,
    /// The server was told to end.
    Draining,
    /// There is nothing that could run a model.
    NoRuntime,
    /// The worker of a loaded model has ended, and the next one does not answer yet.
    NoWorker,
}

impl Unready {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Warming, Self::Draining, Self::NoRuntime, Self::NoWorker];

    /// A word for metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Draining => "draining",
            Self::NoRuntime => "no_runtime",
            Self::NoWorker => "no_worker",
        }
    }
}

/// What an inference node must know of its control node.
#[derive(Debug)]
pub struct Control {
    /// Whether this is an inference node.
    elsewhere: AtomicBool,
    /// When the control node was heard last, Unix seconds; [`HERE`] while it is there.
    heard_s: AtomicI64,
    /// Whether the control node leaves deferrals to the inference nodes, where there are any.
    pub(crate) nodes_only: AtomicBool,
}

/// The control node is there now.
const HERE: i64 = i64::MAX;

impl Default for Control {
    fn default() -> Self {
        Self {
            elsewhere: AtomicBool::new(false),
            heard_s: AtomicI64::new(HERE),
            nodes_only: AtomicBool::new(false),
        }
    }
}

impl Control {
    /// Whether the control node is another than this.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere.load(Relaxed)
    }

    /// The control node is another, and was heard last at this moment.
    pub(crate) fn away_since(&self, heard_s: i64) {
        self.elsewhere.store(true, Relaxed);
        self.heard_s.store(heard_s, Relaxed);
    }

    /// The control node is there.
    pub(crate) fn back(&self) {
        self.heard_s.store(HERE, Relaxed);
    }

    /// The moment at which devices' certificates are judged: now; while the control node is away, when
    /// it was heard last, for no device could renew since.
    pub fn judged_at_s(&self) -> i64 {
        now_s().min(self.heard_s.load(Relaxed))
    }
}

/// Permits for what takes memory or disk for long.
pub struct Limits {
    /// One per connected agent.
    pub connections: Arc<Semaphore>,
    /// One per connection over HTTPS.
    pub https_connections: Arc<Semaphore>,
    /// One per upload of a blob.
    pub uploads: Semaphore,
    /// One bundle is taken in at a time: its model may be loaded to try it.
    pub pushes: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(AGENT_CONNECTIONS_MAX)),
            https_connections: Arc::new(Semaphore::new(HTTPS_CONNECTIONS_MAX)),
            uploads: Semaphore::new(UPLOADS_MAX),
            pushes: Semaphore::new(1),
        }
    }
}

/// Unix seconds.
pub fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Unix seconds now, as what is pure takes them.
pub(crate) fn unix_s() -> u64 {
    u64::try_from(now_s()).unwrap_or(0)
}

/// Unix nanoseconds.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why a device is shut out.
pub(crate) const DENIED: &str = "this device was denied by the operator";

/// The devices that are connected.
#[derive(Debug, Default)]
pub struct Online {
    connections: Mutex<HashMap<DeviceId, Vec<Connection>>>,
}

impl Online {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Vec<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device is connected.
    pub fn contains(&self, device: &DeviceId) -> bool {
        self.lock().contains_key(device)
    }

    /// What carries the device's newest connection, while there is one.
    pub fn carrier(&self, device: &DeviceId) -> Option<Carrier> {
        self.lock().get(device)?.last().map(Connection::carrier)
    }

    /// How many devices are connected.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is connected.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn enter(&self, device: &DeviceId, connection: &Connection) {
        let mut all = self.lock();
        let own = all.entry(device.clone()).or_default();
        own.reserve_exact(1); // it hardly ever has a second
        own.push(connection.clone());
    }

    pub(crate) fn leave(&self, device: &DeviceId, connection: &Connection) {
        let mut all = self.lock();
        if let Some(own) = all.get_mut(device) {
            own.retain(|c| c.stable_id() != connection.stable_id());
            if own.is_empty() {
                all.remove(device);
            }
        }
    }

    /// The connections of a device beside this one.
    pub(crate) fn beside(&self, device: &DeviceId, connection: &Connection) -> Vec<Connection> {
        let all = self.lock();
        let own = all.get(device).into_iter().flatten();
        own.filter(|other| other.stable_id() != connection.stable_id()).cloned().collect()
    }

    /// Ends the connections of a device that was shut out.
    pub(crate) fn expel(&self, device: &DeviceId, reason: &str) {
        for connection in self.lock().get(device).into_iter().flatten() {
            connection.close(ProblemCode::Unauthorised, reason);
        }
    }
}

/// Counts the requests in flight, so that a stopping server can wait for them. Only the last one's end
/// is told to anybody.
#[derive(Debug, Default)]
pub struct InFlight {
    count: AtomicUsize,
    ended: Notify,
}

/// One request in flight.
#[derive(Debug)]
pub struct Flying<'a>(&'a InFlight);

impl InFlight {
    pub(crate) fn enter(&self) -> Flying<'_> {
        self.count.fetch_add(1, Relaxed);
        Flying(self)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Acquire)
    }

    pub(crate) async fn none(&self) {
        loop {
            let ended = self.ended.notified(); // hears what ends from here on
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_waits_hears_of_the_last_end() {
        let in_flight = InFlight::default();
        in_flight.none().await;
        let (one, two) = (in_flight.enter(), in_flight.enter());
        let mut waits = Box::pin(in_flight.none());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(one);
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(in_flight.count(), 1);
        drop(two);
        waits.await;
    }

    #[test]
    fn without_its_control_node_a_node_judges_as_of_the_last_word() {
        let control = Control::default();
        assert!(!control.is_elsewhere() && control.judged_at_s() >= now_s() - 1);
        control.away_since(1000);
        assert!(control.is_elsewhere());
        assert_eq!(control.judged_at_s(), 1000);
        control.back();
        assert!(control.is_elsewhere() && control.judged_at_s() >= now_s() - 1);
        control.away_since(now_s() + 1000);
        assert!(control.judged_at_s() <= now_s(), "a clock that was set back");
    }
}
