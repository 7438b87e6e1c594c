//! `outrigger-agent run`: serve until told to stop.

use super::{StateDir, hinted};
use crate::config::Config;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::identity::{Enrolment, IdentityFiles};
use crate::install::{Installer, Parts, Places};
use crate::lock::StateLock;
use crate::notify::Notifier;
use crate::requests::Requests;
use crate::serve::{Context, router};
use crate::uplink::Keeper;
use crate::uplink::renew::Renewer;
use anyhow::Context as _;
use models::ort_backend::{OrtBackend, find_library};
use protocol::wire::ReportedState;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state_dir: StateDir,
    /// The configuration; agent.toml in the state folder when absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve here instead of at [local] http of the configuration; a loopback address.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<std::net::SocketAddr>,
    /// Logs as lines for people, or as JSON for machines.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.path();
    start_logging(args.log);
    let config_file = args.config.clone().unwrap_or_else(|| state_dir.join("agent.toml"));
    let mut config = Config::read(&config_file)?;
    config.local.http = args.http.unwrap_or(config.local.http);
    config.check()?;
    let files = IdentityFiles::new(&state_dir);
    let enrolment = files.enrolment()?.ok_or_else(|| {
        hinted(
            format!("this device is not enrolled (no enrolment in {})", state_dir.display()),
            "outrigger-agent enrol --cloud HOST:PORT --token-file FILE",
        )
    })?;
    let _lock = StateLock::take(&state_dir).map_err(|e| super::explain_lock(&e))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(&state_dir, config, files, enrolment))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTRIGGER_LOG")
        .unwrap_or_else(|_| "info,ort=warn".into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

async fn serve(
    state_dir: &Path,
    config: Config,
    files: IdentityFiles,
    enrolment: Enrolment,
) -> anyhow::Result<()> {
    let listener = bind(config.local.http).await?;
    let address = listener.local_addr()?;
    let context = assemble(state_dir, config, files, enrolment)?;
    tracing::info!(%address, "serving the Open Inference Protocol");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    publish_address(state_dir, address)?; // last: who reads it may already ask for the end
    let notifier = Notifier::from_environment();
    notifier.ready();
    tokio::spawn(notifier.clone().keep_alive());
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        notifier.stopping();
    };
    axum::serve(listener, router(context)).with_graceful_shutdown(stop).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = "is another agent running? The address is [local] http in agent.toml";
        hinted(format!("cannot listen on {address}: {error}"), hint)
    })
}

/// Scripts, and `status`, find the address here, also where the port was left to the system.
fn publish_address(state_dir: &Path, address: std::net::SocketAddr) -> anyhow::Result<()> {
    let file = state_dir.join(ADDRESS_FILE);
    let text = format!("http://{address}\n");
    ::link::durable::write(&file, text.as_bytes(), ::link::durable::Access::Public)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Holds the address of the local API while the agent runs.
pub(super) const ADDRESS_FILE: &str = "listening";

/// Puts the parts together and starts the tasks that run beside the API.
fn assemble(
    state_dir: &Path,
    config: Config,
    identity: IdentityFiles,
    enrolment: Enrolment,
) -> anyhow::Result<Arc<Context>> {
    let library = find_library(config.runtime.library.as_deref())?;
    let backend = Arc::new(OrtBackend::open(&library)?);
    let engine = Arc::new(Engine::new(backend, &config.runtime));
    let counters = Arc::new(Counters::default());
    let (desired_sender, desired) = watch::channel(None);
    let (reported_sender, reported) = watch::channel(ReportedState::default());
    let keeper = Keeper {
        address: enrolment.cloud.parse()?,
        identity,
        policy: config.link.clone(),
        counters: counters.clone(),
        desired: desired_sender,
        reported,
    };
    let renewer = Renewer {
        address: keeper.address.clone(),
        identity: keeper.identity.clone(),
        counters: counters.clone(),
    };
    let (uplink, keep) = keeper.start();
    let places = Places { state_dir, bytes_per_s: config.link.download_bytes_per_s };
    let parts = Parts {
        engine: engine.clone(),
        uplink: uplink.clone(),
        counters: counters.clone(),
        trusted: enrolment.signers(),
        reported: reported_sender,
    };
    let installer = tokio::task::block_in_place(|| Installer::open(&places, parts))?;
    tokio::spawn(keep);
    tokio::spawn(renewer.run());
    tokio::spawn(installer.clone().run(desired));
    let requests = Requests::new(engine, uplink.clone(), counters.clone(), config.offload);
    let Enrolment { device, cloud, .. } = enrolment;
    Ok(Arc::new(Context { requests, counters, uplink, installer, device, cloud }))
}
