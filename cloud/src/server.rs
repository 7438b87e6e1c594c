//! From a folder to a running server, and back.

use certificate::Certificate;
use doors::AgentsConfig;
use link::durable::{self, Access};
use link::otlp::{CollectorError, Otlp, Service};
use link::tls::{self, Identity};
use models::backend::Backend;
use protocol::id::{ContentHash, Variant};
use protocol::problem::ProblemCode;
use protocol::token::Token;
use protocol::{ALPN_AGENT, ALPN_ENROL, ALPN_NODE, ALPN_NODE_ENROL, ALPN_RENEW};
use quinn::Endpoint;
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;

use crate::access_log::AccessLog;
use crate::admin_key;
use crate::agents;
use crate::api;
use crate::blobs::Blobs;
use crate::ca::{CaError, FleetCa};
use crate::data_dir::{DataDir, DataDirError};
use crate::deltas::Deltas;
use crate::events::Events;
use crate::garbage;
use crate::join::{self, Keeper};
use crate::metrics;
use crate::repository::Repository;
use crate::rollouts::{self, Rollouts};
use crate::serving::settings::ServingSettings;
use crate::serving::{ServeError, Serving};
use crate::settings::{self, Role as Part, Settings};
use crate::sign_in::{SetupError, SignIn};
use crate::state::{Cloud, Files, now_s};
use crate::store::audit::By;
use crate::store::{Database, Store, StoreError};
use crate::telemetry::{Telemetry, TelemetryError, TelemetryStore};
use crate::usage;
#[cfg(target_os = "linux")]
use crate::workers::Workers;

mod certificate;
mod doors;
mod https;
mod limited;
mod sockets;

/// How often models that nobody wants any more are looked for.
const RELEASE_EVERY: Duration = Duration::from_secs(30);
/// How long the end waits for what is on its way to the collector.
const OTLP_PATIENCE: Duration = Duration::from_secs(3);
/// What a control node is called by those who call several.
const CONTROL: &str = "control";
/// How long agents may take to hear that it stopped.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a server is started with.
pub struct Config {
    /// What a person can set.
    pub settings: Settings,
    /// What runs the cloud variants.
    pub engine: Engine,
    /// How they are served, and who may ask how much.
    pub serving: ServingSettings,
}

/// What runs the cloud variants.
#[derive(Clone, Default)]
pub enum Engine {
    /// Nothing: every deferral is refused.
    #[default]
    None,
    /// This process itself.
    Here(Arc<dyn Backend>),
    /// Child processes.
    #[cfg(target_os = "linux")]
    Workers(Arc<Workers>),
}

impl Engine {
    /// What loads models, if anything does.
    pub fn backend(&self) -> Option<Arc<dyn Backend>> {
        match self {
            Self::None => None,
            Self::Here(backend) => Some(backend.clone()),
            #[cfg(target_os = "linux")]
            Self::Workers(workers) => Some(workers.clone()),
        }
    }

    /// The child processes, where models run in some.
    #[cfg(target_os = "linux")]
    pub fn workers(&self) -> Option<&Workers> {
        match self {
            Self::Workers(workers) => Some(workers),
            Self::None | Self::Here(_) => None,
        }
    }

    /// Whether every loaded model can answer now.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::None | Self::Here(_) => true,
            #[cfg(target_os = "linux")]
            Self::Workers(workers) => workers.are_ready(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The fleet CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// It could not join its control node.
    #[error(transparent)]
    Join(#[from] join::JoinError),
    /// The identity of an inference node.
    #[error(transparent)]
    Files(#[from] join::FilesError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The databases of telemetry.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The repository's online keys.
    #[error("the repository's keys in {path} cannot be used")]
    Repository {
        /// Their folder.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A pushed model whose manifest this build cannot read.
    #[error("a stored model cannot be served")]
    Model(#[from] ServeError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Where operators sign in.
    #[error(transparent)]
    SignIn(#[from] SetupError),
    /// QUIC.
    #[error("QUIC cannot be configured")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}, TCP and UDP")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address for metrics is taken, or not this machine's.
    #[error("cannot listen for metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
    /// The collector cannot be told anything.
    #[error(transparent)]
    Collector(#[from] CollectorError),
    /// The bound socket cannot be used.
    #[error("cannot use the bound socket")]
    Listener(#[source] io::Error),
    /// The first admin's key is no key.
    #[error("{0} holds no key of this cloud; remove it to get a fresh one")]
    AdminKey(PathBuf),
    /// A file in the folder.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A running server.
pub struct Server {
    cloud: Arc<Cloud>,
    data_dir: DataDir,
    address: SocketAddr,
    endpoint: Endpoint,
    accepting: JoinHandle<()>,
    metering: JoinHandle<()>,
    https: https::Https,
    drain: settings::Drain,
    metrics_address: Option<SocketAddr>,
    new_admin_key: Option<PathBuf>,
    /// On an inference node: what keeps it connected to its control node.
    joined: Option<(Arc<Keeper>, JoinHandle<()>)>,
}

/// Everything of a server but its sockets.
pub(crate) struct Opened {
    pub(crate) cloud: Arc<Cloud>,
    pub(crate) identity: Identity,
    /// What is spoken over QUIC.
    pub(crate) protocols: Vec<&'static [u8]>,
    pub(crate) reset_key: [u8; 32],
    pub(crate) routes: fn(Arc<Cloud>, Duration) -> axum::Router,
    pub(crate) new_admin_key: Option<PathBuf>,
    pub(crate) keeper: Option<Arc<Keeper>>,
}

impl Server {
    /// Starts a server; it answers once this returns.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listen = config.settings.server.listen;
        let data_dir = DataDir::open(&config.settings.server.data_dir)?;
        let opened = match config.settings.node.role {
            Part::Inference => join::open(&config, &data_dir).await?,
            Part::All | Part::Control => open(&config, &data_dir).await?,
        };
        let Opened { cloud, identity, protocols, reset_key, routes, new_admin_key, keeper } =
            opened;
        let certificate = Certificate { cas: cloud.ca.believed(), protocols };
        let quic = certificate.quic(identity.clone())?;
        let agents = AgentsConfig::new(certificate.tcp(identity.clone())?);
        let failed = |source| StartError::Bind { address: listen, source };
        let (tcp, endpoint) = sockets::bind(listen, &quic, &reset_key).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let routes = routes(cloud.clone(), config.settings.server.body());
        let head = config.settings.server.head();
        let agents_tls = agents.clone();
        let https = https::Https::start(tcp, identity, routes, (cloud.clone(), agents), head)?;
        let metrics_address = open_metrics(&cloud, &config.settings.metrics).await?;
        metrics::tell_collector(&cloud)?;
        let accepting = tokio::spawn(agents::accept(cloud.clone(), endpoint.clone()));
        let path = data_dir.listening();
        durable::write(&path, format!("{address}\n").as_bytes(), Access::Private)
            .map_err(|source| StartError::Write { path, source })?;
        tokio::spawn(preload(cloud.clone()));
        let metering = tokio::spawn(usage::keep(cloud.clone()));
        tokio::spawn(release_idle(cloud.clone()));
        let grace = config.settings.blobs.grace();
        tokio::spawn(garbage::keep_sweeping(cloud.clone(), grace));
        if !cloud.control.is_elsewhere() {
            tokio::spawn(rollouts::drive(cloud.clone()));
        }
        let retention = config.settings.telemetry.retention();
        tokio::spawn(crate::telemetry::keep_sweeping(cloud.clone(), retention));
        let joined = keeper.map(|keeper| {
            let advertise = advertised(&config.settings, address);
            let renewed = certificate.replace_on(endpoint.clone(), https.tls(), agents_tls);
            (keeper.clone(), tokio::spawn(keeper.run(advertise, renewed)))
        });
        let drain = config.settings.drain;
        Ok(Self {
            cloud,
            data_dir,
            address,
            endpoint,
            accepting,
            metering,
            https,
            drain,
            metrics_address,
            new_admin_key,
            joined,
        })
    }

    /// Waits until this inference node is shut out by its control node; for ever anywhere else.
    pub async fn removed(&mut self) {
        match &mut self.joined {
            Some((_, keeping)) => drop(keeping.await), // a panic in it was reported
            None => std::future::pending().await,
        }
    }

    /// Where it listens, TCP and UDP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are read without a key, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The shared state.
    pub fn cloud(&self) -> &Arc<Cloud> {
        &self.cloud
    }

    /// The first admin's key, when this start made it.
    pub fn new_admin_key(&self) -> Option<&PathBuf> {
        self.new_admin_key.as_ref()
    }

    /// Stops. First it says that it is not ready and goes on, so that balancers and agents turn to
    /// others; then it takes nothing new and answers what is in flight; then agents are told to come
    /// back later, or to somebody else.
    pub async fn stop(self) {
        self.cloud.draining.send_replace(true);
        tokio::time::sleep(self.drain.notice()).await;
        self.cloud.stopping.send_replace(true);
        let grace = self.drain.grace();
        self.https.begin_stop(grace);
        let _ = tokio::time::timeout(grace, self.cloud.in_flight.none()).await;
        self.endpoint.close(ProblemCode::GoingAway.number().into(), b"the cloud is stopping");
        let over_tcp = self.cloud.over_tcp.close(ProblemCode::GoingAway, "the cloud is stopping");
        let farewell = async { tokio::join!(self.endpoint.wait_idle(), over_tcp) };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        let _ = self.accepting.await; // it ends by itself; a panic in it was reported
        self.https.stopped().await;
        let _ = self.metering.await;
        usage::flush(&self.cloud).await; // after the last answer: nothing is lost
        self.cloud.access_log.finish();
        let otlp = self.cloud.otlp.clone();
        let _ = tokio::task::spawn_blocking(move || otlp.finish(OTLP_PATIENCE)).await;
        if let Some((keeper, keeping)) = self.joined {
            keeper.say_goodbye().await;
            keeping.abort();
        }
        let _ = std::fs::remove_file(self.data_dir.listening());
    }
}

/// The access log, and the way to a collector, on or off; `node` where it is one of several.
pub(crate) fn open_records(
    config: &Config,
    node: Option<String>,
) -> Result<(AccessLog, Otlp), StartError> {
    let (settings, folder) = (&config.settings, &config.settings.server.data_dir);
    let log = AccessLog::open(&settings.access_log, folder).map_err(StartError::AccessLog)?;
    let instance = Some(node.unwrap_or_else(|| CONTROL.to_owned()));
    let service = Service { name: "outrigger-cloud", version: env!("CARGO_PKG_VERSION"), instance };
    Ok((log, Otlp::start(&settings.otlp, service)?))
}

/// What lies in the data folder.
pub(crate) fn open_files(config: &Config, data_dir: &DataDir) -> Result<Files, StartError> {
    let blobs = Blobs::new(data_dir.blobs(), data_dir.incoming());
    let (settings, events) = (&config.settings.blobs, Arc::new(Events::default()));
    let path = data_dir.deltas();
    let deltas = Deltas::open(path.clone(), blobs.clone(), settings, events.clone());
    let deltas = deltas.map_err(|source| DataDirError::Io { path, source })?;
    let own = &config.settings.telemetry;
    let telemetry = TelemetryStore::open(&data_dir.telemetry(), own.crowd())?;
    let telemetry = Telemetry::new(telemetry, own.disk_bytes());
    let rollouts = Rollouts::new(config.settings.rollouts.look_s);
    Ok(Files { blobs, deltas, events, telemetry, rollouts })
}

async fn open_metrics(
    cloud: &Arc<Cloud>,
    settings: &settings::Metrics,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(address) = settings.address() else { return Ok(None) };
    let opened = metrics::serve(cloud, address).await;
    opened.map(Some).map_err(|source| StartError::Metrics { address, source })
}

fn server_names(settings: &settings::Server) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let certifiable = |name: &String| ServerName::try_from(name.as_str()).is_ok();
    names.extend(link::system::host_name().filter(certifiable));
    names.extend(settings.names.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// Everything of a control node but its sockets.
async fn open(config: &Config, data_dir: &DataDir) -> Result<Opened, StartError> {
    let ca = FleetCa::open(&data_dir.ca())?;
    let identity = ca.server_identity(&server_names(&config.settings.server))?;
    let store = Store::open(&data_dir.database())?;
    let new_admin_key = first_admin_key(&store, data_dir, ca.hash())?;
    let path = data_dir.repository();
    let repository = Repository::open(&path);
    let repository = repository.map_err(|source| StartError::Repository { path, source })?;
    let cloud = open_cloud(config, data_dir, store, (ca, repository)).await?;
    if let Some(sign_in) = SignIn::open(&config.settings.oidc)? {
        let _ = cloud.sign_in.set(sign_in); // it is the first
    }
    let nodes_only = config.settings.node.role == Part::Control;
    cloud.control.nodes_only.store(nodes_only, Ordering::Relaxed);
    Ok(Opened {
        reset_key: cloud.ca.reset_key()?,
        cloud,
        identity,
        protocols: vec![ALPN_AGENT, ALPN_ENROL, ALPN_RENEW, ALPN_NODE, ALPN_NODE_ENROL],
        routes: api::router,
        new_admin_key,
        keeper: None,
    })
}

/// Where agents reach an inference node.
fn advertised(settings: &Settings, address: SocketAddr) -> String {
    if !settings.node.advertise.is_empty() {
        return settings.node.advertise.clone();
    }
    match address.ip().is_unspecified() {
        true => {
            let host = link::system::host_name().unwrap_or_else(|| "localhost".to_owned());
            format!("{host}:{}", address.port())
        }
        false => address.to_string(),
    }
}

/// Makes the first admin's key where there is no key at all, or goes on with the one whose file a start
/// that was cut off has left.
fn first_admin_key(
    store: &Store,
    data_dir: &DataDir,
    ca_hash: ContentHash,
) -> Result<Option<PathBuf>, StartError> {
    if store.has_api_keys()? {
        return Ok(None);
    }
    let path = data_dir.admin_key();
    let by = By { actor: "outrigger-cloud".into(), now_s: now_s() };
    let written = match std::fs::read_to_string(&path) {
        Ok(text) => {
            let token: Option<Token> = text.parse().ok();
            let own = token.filter(|token| token.ca_hash == ca_hash);
            let own = own.ok_or_else(|| StartError::AdminKey(path.clone()))?;
            admin_key::keep(store, &path, &own, &by)?
        }
        Err(_) => admin_key::make(store, &path, ca_hash, &by)?,
    };
    written.map_err(|source| StartError::Write { path: path.clone(), source })?;
    Ok(Some(path))
}

async fn open_cloud(
    config: &Config,
    data_dir: &DataDir,
    store: Store,
    signing: (FleetCa, Repository),
) -> Result<Arc<Cloud>, StartError> {
    let files = open_files(config, data_dir)?;
    let blobs = files.blobs.clone();
    let (backend, settings) = (config.engine.backend(), config.serving.clone());
    let db = Database::new(store);
    let folder = data_dir.bundles();
    let serving = Serving::new(backend, (db.clone(), blobs), folder, settings);
    for record in db.store().bundles()? {
        if record.variant == Variant::Cloud {
            serving.add(&record.signed, None)?;
        }
    }
    for (model, policy) in db.store().policies()? {
        serving.set_policy(&model, policy);
    }
    let records = open_records(config, None)?;
    let serving = (serving, config.engine.clone());
    Ok(Cloud::new(db, signing, files, serving, records).await?)
}

/// Loads what should answer before anybody asks for it; then the server is ready.
async fn preload(cloud: Arc<Cloud>) {
    cloud.serving.preload_answering().await;
    let assignments = match cloud.db.call(Store::assignments).await {
        Ok(assignments) => assignments,
        Err(error) => return cloud.events.internal_error(&error),
    };
    for assignment in assignments {
        let loaded = cloud.serving.preload(&assignment.model, assignment.version).await;
        if let Err(error) = loaded {
            cloud.events.internal_error(&error);
        }
    }
    cloud.warm.store(true, Ordering::Release);
}

/// Lets go of versions that devices have left.
async fn release_idle(cloud: Arc<Cloud>) {
    let mut stopping = cloud.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(RELEASE_EVERY) => {
                cloud.serving.release_unwanted();
                let measured = cloud.clone();
                let measure = move || measured.serving.measure_memory();
                let _ = tokio::task::spawn_blocking(measure).await; // the next one measures again
            }
        }
    }
}
