//! `outrigger-agent run`: serve until told to stop.

use super::{StateDir, hinted};
use crate::audits::Audits;
use crate::clock::Clock;
use crate::config::{Config, Local};
use crate::counters::Counters;
use crate::engine::{Engine, Marks};
use crate::identity::{Enrolment, IdentityFiles};
use crate::install::{Installer, Parts, Places};
use crate::lab::{self, Lab};
use crate::lock::StateLock;
use crate::logging::{KeptLines, Log, LogFormat};
use crate::metrics;
use crate::notify::Notifier;
use crate::peers::Peers;
use crate::program::{self, Begun, Own, Trial};
use crate::questions::{self, Answers};
use crate::reload::{Reloader, Source, Told};
use crate::repository::Repository;
use crate::requests::{self, Checker, Requests};
use crate::sandbox::Prover;
use crate::sequences::SequenceStates;
use crate::serve::{Applications, Context, Door, metrics_router, router};
use crate::state::State;
use crate::telemetry::{self, Recorder};
use crate::uplink::gate::Gate;
use crate::uplink::renew::Renewer;
use crate::uplink::{Keeper, Uplink, Way};
use ::link::otlp::{Otlp, OtlpSettings, Service};
use anyhow::Context as _;
use models::backend::Backend;
use models::ort_backend::{OnDemand, find_library};
use oip::listen::{Listener, Patience, SocketError, UnixSocket};
use protocol::id::ContentHash;
use protocol::wire::{DesiredState, ReportedState};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long the end waits for what is on its way to the collector.
const OTLP_PATIENCE: Duration = Duration::from_secs(3);

/// How long the end waits for what was recorded to be written.
const TELEMETRY_PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    /// The configuration; agent.toml in the state folder when absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve here instead of at `[local] http` of the configuration; a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Serve gRPC here instead of at `[local] grpc` of the configuration; a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
    /// Serve Prometheus' /metrics here instead of at `[local] metrics`; a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Logs as lines for people, or as JSON for machines.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let state_dir = args.state_dir.path();
    let begun = program::begin(&state_dir).context("cannot find this program's own file")?;
    let end = run_begun(args, &state_dir, (&begun, began));
    let anew = match &end {
        Ok(End::Anew) => true,
        Ok(End::Stopped) => false,
        Err(error) => program::gives_way(&state_dir, &begun, error),
    };
    if anew {
        return Err(program::begin_anew(&begun)).context("the agent cannot begin anew");
    }
    end.map(|_| ExitCode::SUCCESS)
}

/// How it ended, in order.
enum End {
    Stopped,
    /// Another program is to run.
    Anew,
}

/// Serves to its end, as the program that this start has begun with.
fn run_begun(
    args: &Args,
    state_dir: &Path,
    (begun, began): (&Begun, Instant),
) -> anyhow::Result<End> {
    let config_file = args.config.clone().unwrap_or_else(|| state_dir.join("agent.toml"));
    let mut config = Config::read(&config_file)?;
    let told = Told { http: args.http, grpc: args.grpc, metrics: args.metrics };
    told.apply(&mut config);
    config.check()?;
    let log = Log::start(args.log, config.log.level);
    let files = IdentityFiles::new(state_dir);
    let enrolment = files.enrolment()?.ok_or_else(|| {
        hinted(
            format!("this device is not enrolled (no enrolment in {})", state_dir.display()),
            "outrigger-agent enrol --cloud HOST:PORT --token-file FILE",
        )
    })?;
    let _lock = StateLock::take(state_dir).map_err(|e| super::explain_lock(&e))?;
    sweep(state_dir);
    let own = Own::open(state_dir, begun.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads())
        .enable_all()
        .build()?;
    let lines = log.kept();
    let source = Source { file: config_file.clone(), told, log };
    let device = Device { state_dir, config_file, lines, files: files.clone(), enrolment };
    let served = runtime.block_on(serve(device, config, source, (own.clone(), began)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    files.let_go();
    served?;
    Ok(if own.restarts() { End::Anew } else { End::Stopped })
}

/// Whose agent this is.
struct Device<'a> {
    state_dir: &'a Path,
    config_file: PathBuf,
    lines: KeptLines,
    files: IdentityFiles,
    enrolment: Enrolment,
}

/// One thread moves bytes for all, and leaves the other cores and warm caches to the models; a second
/// where there are cores to spare. Whatever takes long steps aside.
fn io_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 4 { 2 } else { 1 }
}

/// What a power cut left of a write. It is in nobody's way, so that it must not keep the agent down.
fn sweep(state_dir: &Path) {
    match ::link::durable::sweep(state_dir) {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "swept what interrupted writes had left"),
        Err(error) => tracing::warn!(%error, "cannot sweep the state folder"),
    }
}

async fn serve(
    device: Device<'_>,
    config: Config,
    source: Source,
    (own, began): (Arc<Own>, Instant),
) -> anyhow::Result<()> {
    let state_dir = device.state_dir;
    let sockets = Sockets::bind(state_dir, &config.local).await?;
    let applications = Arc::new(Applications::new(&config.local.applications));
    let metrics_at = config.local.metrics;
    let otlp = open_otlp(&config.otlp, &device.enrolment)?;
    let context = assemble(&device, &config, otlp, (own.clone(), began))?;
    tell_collector(&context)?;
    tokio::spawn(Reloader::new(source, config, context.clone())?.run());
    serve_metrics(state_dir, metrics_at, context.clone()).await?;
    let stop = stop_signal(own.clone())?;
    let trial = trial(&context, sockets.http.local_addr()?);
    sockets.publish(state_dir)?; // last: who reads it may already ask for the end
    let notifier = Notifier::from_environment();
    notifier.ready();
    tokio::spawn(notifier.clone().keep_alive());
    tokio::spawn(say_goodbye(notifier, own.clone(), stop.clone()));
    tokio::spawn(trial.run(began));
    sockets.serve(&context, &applications, stop).await;
    context.installer.stop();
    if let Some(recorder) = &context.recorder {
        ::link::durable::aside(|| recorder.finish(TELEMETRY_PATIENCE));
    }
    ::link::durable::aside(|| own.ends_in_order());
    context.uplink.finish().await;
    ::link::durable::aside(|| context.otlp.finish(OTLP_PATIENCE));
    tracing::info!("stopped");
    Ok(())
}

/// Lines of the log and figures, for the collector if there is one.
fn tell_collector(context: &Arc<Context>) -> anyhow::Result<()> {
    let (of_logs, of_metrics) = (context.clock.clone(), context.clock.clone());
    context.otlp.tell_logs(move || of_logs.now_ns())?;
    let told = Arc::downgrade(context);
    let gather = move || told.upgrade().map(|context| metrics::gather(&context));
    Ok(context.otlp.tell_metrics(gather, move || of_metrics.now_ns())?)
}

fn open_otlp(settings: &OtlpSettings, enrolment: &Enrolment) -> anyhow::Result<Otlp> {
    let (name, version) = ("outrigger-agent", program::version());
    let instance = Some(enrolment.device.to_string());
    Ok(Otlp::start(settings, Service { name, version, instance })?)
}

/// The watch over this program, where it is a new one.
fn trial(context: &Context, http: SocketAddr) -> Trial {
    let Context { program, uplink, installer, .. } = context;
    let (own, uplink, installer) = (program.clone(), uplink.clone(), installer.clone());
    Trial { own, uplink, installer, http }
}

/// Tells the service manager that the end was asked for.
async fn say_goodbye(notifier: Notifier, own: Arc<Own>, mut stop: watch::Receiver<bool>) {
    if stop.changed().await.is_ok() {
        match own.restarts() {
            true => notifier.begins_anew(),
            false => notifier.stopping(),
        }
    }
}

/// Turns true when the process is told to end, or is to begin anew.
fn stop_signal(own: Arc<Own>) -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = own.restart_wanted() => {}
        }
        let _ = sender.send(true);
    });
    Ok(receiver)
}

/// Where applications call. HTTP and gRPC are told apart on any of the sockets; there are two
/// addresses because that is where clients of the standard look.
struct Sockets {
    http: TcpListener,
    grpc: TcpListener,
    unix: Option<UnixSocket>,
    first_head: Duration,
}

impl Sockets {
    async fn bind(state_dir: &Path, local: &Local) -> anyhow::Result<Self> {
        Ok(Self {
            http: bind(local.http, "http").await?,
            grpc: bind(local.grpc, "grpc").await?,
            unix: bind_socket(state_dir, local.socket.as_deref()).await?,
            first_head: local.first_head(),
        })
    }

    /// Scripts, and `status`, find the addresses here, also where a port was left to the system.
    fn publish(&self, state_dir: &Path) -> anyhow::Result<()> {
        let file = state_dir.join(ADDRESS_FILE);
        let (http, grpc) = (self.http.local_addr()?, self.grpc.local_addr()?);
        let mut text = format!("http://{http}\ngrpc://{grpc}\n");
        if let Some(socket) = &self.unix {
            text += &format!("{SOCKET_SCHEME}{}\n", socket.path().display());
        }
        tracing::info!(%http, %grpc, "serving the Open Inference Protocol");
        ::link::durable::write(&file, text.as_bytes(), ::link::durable::Access::Public)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    async fn serve(
        self,
        context: &Arc<Context>,
        applications: &Arc<Applications>,
        stop: watch::Receiver<bool>,
    ) {
        let counters = context.counters.clone();
        let on_late = Arc::new(move || counters.connection_late());
        let patience = Patience { first_head: self.first_head, on_late };
        let mut doors = JoinSet::new();
        for listener in [self.http, self.grpc] {
            let router = router(context.clone(), Door::Tcp(applications.clone()));
            let listener = Listener::Tcp(listener);
            doors.spawn(oip::listen::serve(listener, router, patience.clone(), stop.clone()));
        }
        if let Some(socket) = self.unix {
            let router = router(context.clone(), Door::Unix);
            doors.spawn(oip::listen::serve(Listener::Unix(socket), router, patience, stop));
        }
        doors.join_all().await;
    }
}

async fn bind(address: SocketAddr, field: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint =
            format!("is another agent running? The address is [local] {field} in agent.toml");
        hinted(format!("cannot listen on {address}: {error}"), hint)
    })
}

/// The Unix socket: where the configuration says, or in the state folder.
async fn bind_socket(
    state_dir: &Path,
    configured: Option<&Path>,
) -> anyhow::Result<Option<UnixSocket>> {
    if configured.is_some_and(|path| path.as_os_str().is_empty()) {
        return Ok(None);
    }
    let default = state_dir.join("agent.sock");
    match UnixSocket::bind(configured.unwrap_or(&default)).await {
        Ok(socket) => Ok(Some(socket)),
        // Nobody asked for this very path; the agent serves without it.
        Err(error @ SocketError::TooLong(_)) if configured.is_none() => {
            tracing::warn!(%error, "no Unix socket; set [local] socket to a shorter path");
            Ok(None)
        }
        Err(error) => {
            let hint = "the path is [local] socket in agent.toml";
            Err(hinted(protocol::problem::chain(&error), hint))
        }
    }
}

/// Answers matter more than their numbers: an address that is taken is said, and lived without.
async fn serve_metrics(
    state_dir: &Path,
    address: SocketAddr,
    context: Arc<Context>,
) -> anyhow::Result<()> {
    match TcpListener::bind(address).await {
        Ok(listener) => {
            publish_metrics(state_dir, listener.local_addr()?)?;
            tokio::spawn(axum::serve(listener, metrics_router(context)).into_future());
        }
        Err(error) => {
            let _ = std::fs::remove_file(state_dir.join(METRICS_ADDRESS_FILE)); // a former one's
            tracing::warn!(%address, %error, "no metrics are served");
        }
    }
    Ok(())
}

/// Scripts find the address of `/metrics` here, also where the port was left to the system.
fn publish_metrics(state_dir: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let file = state_dir.join(METRICS_ADDRESS_FILE);
    let text = format!("http://{address}\n");
    ::link::durable::write(&file, text.as_bytes(), ::link::durable::Access::Public)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Holds the addresses of the local API while the agent runs, one a line, HTTP first.
pub(crate) const ADDRESS_FILE: &str = "listening";
/// The line with the Unix socket begins so.
pub(crate) const SOCKET_SCHEME: &str = "unix://";

/// Holds the address of `/metrics` while the agent runs.
const METRICS_ADDRESS_FILE: &str = "metrics-listening";

/// What answers, and the task that checks its answers.
fn answering(parts: requests::Parts, installer: Arc<Installer>) -> Arc<Requests> {
    let (requests, queue) = Requests::new(parts);
    tokio::spawn(Checker { requests: requests.clone(), installer, queue }.run());
    requests
}

/// What is recorded of requests, where the owner wants that.
fn record(
    state_dir: &Path,
    config: &Config,
    (repository, counters): (&Arc<Repository>, &Arc<Counters>),
    heard: telemetry::Heard,
) -> anyhow::Result<Option<Arc<Recorder>>> {
    let (repository, counters) = (repository.clone(), counters.clone());
    Ok(telemetry::start(state_dir, &config.telemetry, repository, counters, heard)?)
}

/// What keeps the connection to the cloud.
fn keeper(
    config: &Config,
    (enrolment, identity): (&Enrolment, &IdentityFiles),
    (counters, clock): (&Arc<Counters>, &Arc<Clock>),
    (engine, reported): (&Arc<Engine>, watch::Receiver<ReportedState>),
) -> anyhow::Result<Keeper> {
    Ok(Keeper {
        way: Way::new(enrolment.cloud.parse()?, &config.link),
        identity: identity.clone(),
        policy: config.link.clone(),
        counters: counters.clone(),
        clock: clock.clone(),
        bells: Arc::default(),
        desired: watch::Sender::new(None),
        reported,
        engine: engine.clone(),
    })
}

/// Renews the certificate that the keeper of the connection shows.
fn renewer(keeper: &Keeper) -> Renewer {
    Renewer {
        way: keeper.way.clone(),
        identity: keeper.identity.clone(),
        counters: keeper.counters.clone(),
        clock: keeper.clock.clone(),
        bells: keeper.bells.clone(),
    }
}

/// What runs models, and what is known of the process before this one.
struct Running {
    engine: Arc<Engine>,
    prover: Prover,
    /// ONNX Runtime's version.
    runtime: String,
    at_work: BTreeSet<ContentHash>,
}

fn running(state_dir: &Path, config: &Config, counters: &Arc<Counters>) -> anyhow::Result<Running> {
    let library = find_library(config.runtime.library.as_deref())?;
    let prover = Prover::new(&library, config);
    let unreadable = || format!("cannot read {}", library.display());
    let backend = Arc::new(OnDemand::new(library.clone()).with_context(unreadable)?);
    let runtime = backend.identity();
    let (own, of_models) = (config.runtime.clone(), config.models.clone());
    let (marks, at_work) = tokio::task::block_in_place(|| Marks::open(state_dir, &program::boot()));
    let engine = Arc::new(Engine::new(backend, own, of_models, counters.clone(), marks));
    Ok(Running { engine, prover, runtime, at_work })
}

/// Puts the parts together and starts the tasks that run beside the API.
fn assemble(
    device: &Device<'_>,
    config: &Config,
    otlp: Otlp,
    (program, began): (Arc<Own>, Instant),
) -> anyhow::Result<Arc<Context>> {
    let Device { state_dir, files: identity, enrolment, .. } = device;
    let counters = Arc::new(Counters::default());
    let Running { engine, prover, runtime, at_work } = running(state_dir, config, &counters)?;
    let (reported_sender, reported) = watch::channel(first_report(config, &runtime));
    let clock = Arc::new(Clock::open(state_dir, enrolment.ca_hash, counters.clone()));
    let heard = (&engine, reported);
    let keeper = keeper(config, (enrolment, identity), (&counters, &clock), heard)?;
    let (desired, renewer) = (keeper.desired.subscribe(), renewer(&keeper));
    let (uplink, keep) = keeper.start();
    let state = Arc::new(tokio::task::block_in_place(|| State::open(state_dir))?);
    let audits = Arc::new(Audits::new(state.clone(), counters.clone(), config.offload.audit()));
    let repository = repository((enrolment, identity), (&state, &uplink, &clock))?;
    let parts = Parts {
        engine: engine.clone(),
        uplink: uplink.clone(),
        counters: counters.clone(),
        audits: audits.clone(),
        state: state.clone(),
        repository: repository.clone(),
        reported: reported_sender.clone(),
        prover,
        runtime: runtime.clone(),
        update: config.update.clone(),
        at_work,
        program_on_trial: program.is_candidate(),
    };
    let peers = Peers::open(state_dir, &config.peers, (identity, enrolment), (&clock, &counters));
    let places = Places { state_dir, gate: gate(config, &clock, &state)?, peers: peers.clone() };
    let installer = tokio::task::block_in_place(|| Installer::open(&places, parts))?;
    tokio::spawn(async move { tokio::join!(keep, renewer.run()) });
    tokio::spawn(installer.clone().run(desired.clone()));
    let heard = (desired.clone(), reported_sender.subscribe());
    let recorder = record(state_dir, config, (&repository, &counters), heard)?;
    follow(peers.as_ref(), enrolment, (&desired, &reported_sender))?;
    let sequences = sequences(config, &counters);
    let parts = requests::Parts {
        engine,
        uplink: uplink.clone(),
        counters: counters.clone(),
        policy: config.offload.clone(),
        sequences,
        state,
        clock: clock.clone(),
        audits,
        recorder: recorder.clone(),
    };
    let context = Arc::new(Context {
        requests: answering(parts, installer.clone()),
        counters,
        uplink,
        installer,
        device: enrolment.device.clone(),
        cloud: enrolment.cloud.clone(),
        identity: identity.clone(),
        intake: config.local.intake(),
        clock,
        traces: otlp.traces(),
        otlp,
        program,
        recorder,
        peers,
    });
    let next = next_program(&context, repository, config, (reported_sender.clone(), began));
    tokio::spawn(program::Task::new(next).run(desired.clone()));
    tokio::spawn(answers(&context, device, config).run(desired.clone()));
    let lab = lab(&context, config, enrolment, runtime, reported_sender);
    tokio::spawn(Lab::new(state_dir, lab)?.run(desired));
    Ok(context)
}

/// The states of streams, and the task that forgets those that nobody goes on with.
fn sequences(config: &Config, counters: &Arc<Counters>) -> Arc<SequenceStates> {
    let sequences = Arc::new(SequenceStates::new(&config.sequences, counters.clone()));
    tokio::spawn(sequences.clone().run());
    sequences
}

/// Serves the devices of the site, and hears who they are.
fn follow(
    peers: Option<&Arc<Peers>>,
    enrolment: &Enrolment,
    (desired, reported): (&watch::Receiver<Option<DesiredState>>, &watch::Sender<ReportedState>),
) -> anyhow::Result<()> {
    if let Some(peers) = peers {
        let cloud = enrolment.cloud.parse()?;
        tokio::spawn(peers.clone().run(desired.clone(), reported.clone(), cloud));
    }
    Ok(())
}

/// What is said before any model has been looked at: what the machine is.
fn first_report(config: &Config, runtime: &str) -> ReportedState {
    let inventory = Some(crate::inventory::read(&config.runtime, runtime));
    ReportedState { inventory, ..ReportedState::default() }
}

/// Who says what may be installed here.
fn repository(
    (enrolment, identity): (&Enrolment, &IdentityFiles),
    (state, uplink, clock): (&Arc<State>, &Uplink, &Arc<Clock>),
) -> anyhow::Result<Arc<Repository>> {
    let root = identity.root()?;
    tokio::task::block_in_place(|| state.enter_repository(enrolment.ca_hash, root.as_deref()))?;
    Ok(Arc::new(Repository {
        state: state.clone(),
        uplink: uplink.clone(),
        clock: clock.clone(),
        device: enrolment.device.clone(),
        operators: enrolment.signers(),
        told: std::sync::Mutex::default(),
        alone: tokio::sync::Mutex::default(),
    }))
}

/// What every download passes.
fn gate(config: &Config, clock: &Arc<Clock>, state: &Arc<State>) -> anyhow::Result<Arc<Gate>> {
    let rate = config.link.download_bytes_per_s;
    Ok(Arc::new(Gate::open(&config.download, rate, clock.clone(), state.clone())?))
}

/// What follows the releases of the agent that are wanted here.
fn next_program(
    context: &Context,
    repository: Arc<Repository>,
    config: &Config,
    (reported, began): (watch::Sender<ReportedState>, Instant),
) -> program::Parts {
    program::Parts {
        own: context.program.clone(),
        uplink: context.uplink.clone(),
        repository,
        installer: context.installer.clone(),
        counters: context.counters.clone(),
        reported,
        incoming: context.installer.incoming(),
        allowed: config.update.program,
        terms: config.update.program(),
        began,
    }
}

/// What answers operators.
fn answers(context: &Context, device: &Device<'_>, config: &Config) -> Answers {
    Answers::new(questions::Parts {
        state_dir: device.state_dir.to_owned(),
        config_file: device.config_file.clone(),
        allowed: config.remote.clone(),
        lines: device.lines.clone(),
        uplink: context.uplink.clone(),
        counters: context.counters.clone(),
    })
}

/// What carries out the orders of labs.
fn lab(
    context: &Context,
    config: &Config,
    enrolment: &Enrolment,
    runtime: String,
    reported: watch::Sender<ReportedState>,
) -> lab::Parts {
    lab::Parts {
        device: context.device.clone(),
        enabled: config.lab.enabled,
        trusted: enrolment.signers(),
        runtime,
        sandbox: context.installer.sandbox(),
        uplink: context.uplink.clone(),
        clock: context.clock.clone(),
        counters: context.counters.clone(),
        reported,
        gate: context.installer.gate().clone(),
    }
}
