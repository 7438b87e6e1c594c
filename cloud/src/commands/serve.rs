//! `outrigger-cloud serve`: runs the server until it is told to stop.

use anyhow::Context;
use link::otlp::log_layer;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_cloud::server::{Config, Engine, Server};
use outrigger_cloud::settings::{self, LogFormat, layers};
#[cfg(target_os = "linux")]
use outrigger_cloud::workers::{self, Workers};
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::{SettingFlags, complain};

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match layers::load(&args.settings.sources()) {
        Ok(loaded) => {
            outrigger_cloud::memory::share();
            start_log(&loaded.settings.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(socket_threads())
                .enable_all()
                .build()?;
            let end = runtime.block_on(serve(loaded.settings))?;
            runtime.shutdown_background(); // nothing is left, or nothing is waited for
            Ok(end)
        }
        Err(findings) => {
            complain(&findings);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// One thread for the sockets of every four cores. More would take caches and wake-ups from the models:
/// on two cores, two of them cost a small request 20 % more CPU, and a lone one 30 %.
fn socket_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(4))
}

fn start_log(settings: &settings::Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let colour = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).with(log_layer()).init();
    Ok(())
}

async fn serve(settings: settings::Settings) -> anyhow::Result<ExitCode> {
    // An error would mean that a provider is installed already; ours is the only one there is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let engine = open_engine(&settings.runtime)?;
    let host = reached_under(&settings.server);
    let memory_bytes = settings.runtime.memory_budget_bytes();
    let mut serving = settings.serving.settings(&settings.models, memory_bytes);
    serving.accelerators = settings.runtime.accelerators();
    let mut server = Server::start(Config { settings, engine, serving }).await?;
    let mut signals = Signals::listen()?; // before it is said that somebody may send one
    say_ready(&server, &host);
    let removed = tokio::select! {
        () = signals.next() => false,
        () = server.removed() => true,
    };
    tracing::info!("stopping; a second signal ends the server at once");
    tokio::select! {
        () = server.stop() => tracing::info!("stopped"),
        () = signals.next() => {
            tracing::warn!("ended at once: requests under way were given up");
            return Ok(ExitCode::FAILURE);
        }
    }
    if removed {
        anyhow::bail!("this node was removed; empty its folder, and join anew with a fresh token");
    }
    Ok(ExitCode::SUCCESS)
}

/// How an operator would call this server.
fn reached_under(server: &settings::Server) -> String {
    let ip = server.listen.ip();
    let named = server.names.first().cloned();
    named.unwrap_or_else(|| match ip.is_unspecified() {
        true => link::system::host_name().unwrap_or_else(|| "localhost".to_owned()),
        false if ip.is_ipv6() => format!("[{ip}]"),
        false => ip.to_string(),
    })
}

fn open_engine(settings: &settings::Runtime) -> anyhow::Result<Engine> {
    let library = match find_library(settings.named_library()) {
        Ok(library) => library,
        Err(error) if settings.named_library().is_some() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "running without ONNX Runtime: deferrals will be refused");
            return Ok(Engine::None);
        }
    };
    if !settings.workers {
        return Ok(Engine::Here(Arc::new(OrtBackend::open(&library)?)));
    }
    with_workers(&library, settings)
}

#[cfg(target_os = "linux")]
fn with_workers(library: &Path, settings: &settings::Runtime) -> anyhow::Result<Engine> {
    let seconds = |limit_s: u32| Duration::from_secs(limit_s.max(1).into());
    let limits = workers::Limits {
        memory_bytes: settings.memory_budget_bytes(),
        load: seconds(settings.load_limit_s),
        run: seconds(settings.run_limit_s),
    };
    let workers = Workers::new(library, limits);
    Ok(Engine::Workers(Arc::new(workers.context("cannot read ONNX Runtime's library")?)))
}

#[cfg(not(target_os = "linux"))]
fn with_workers(_: &Path, _: &settings::Runtime) -> anyhow::Result<Engine> {
    anyhow::bail!("only Linux has workers: leave runtime.workers out")
}

fn say_ready(server: &Server, host: &str) {
    let address = server.address();
    if let Some(path) = server.new_admin_key() {
        let (path, port) = (path.display(), address.port());
        tracing::info!("first start: the admin's key is in {path}");
        tracing::info!("next: outrigger login --cloud {host}:{port} --key-file {path}");
    }
    tracing::info!(%address, "ready");
}

/// What tells the server to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
