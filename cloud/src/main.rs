//! `outrigger-cloud`: the server of a fleet, in one process and one folder.

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use models::memory;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_cloud::server::{Config, Runtime, Server};
#[cfg(target_os = "linux")]
use outrigger_cloud::workers::{self, Workers};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless RUST_LOG says otherwise: ONNX Runtime introduces itself at length.
const LOG_DEFAULT: &str = "info,ort=warn";

/// The cloud side of Outrigger: enrols devices, carries models to them, and answers what they
/// defer.
#[derive(Parser)]
#[command(version, name = "outrigger-cloud")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(Serve),
    /// Run one model for the server that starts this.
    #[cfg(target_os = "linux")]
    #[command(name = workers::SUBCOMMAND, hide = true)]
    RunModel {
        /// A name for people who look at the list of processes.
        #[allow(dead_code)] // seen from outside only
        label: String,
    },
}

#[derive(Args)]
struct Serve {
    /// The server's folder: made on the first start, private to its owner.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Where to listen, TCP (operators) and UDP (agents); port 0 takes a free one and writes it to
    /// FOLDER/listening.
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A host name or address under which agents and operators reach this server; repeatable.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// ONNX Runtime's shared library; found by itself where it is installed.
    #[arg(long, value_name = "LIBRARY")]
    runtime: Option<PathBuf>,
    /// Where models run: each in a child process, or all in the server itself.
    #[arg(long, default_value_t = WorkersMode::default(), value_enum, value_name = "ON|OFF")]
    workers: WorkersMode,
    /// Memory for all models together, in MB; half of what the machine or its control group has when
    /// absent.
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(64..1 << 30))]
    memory_budget_mb: Option<u64>,
    /// How to log to stderr. What to log: RUST_LOG.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkersMode {
    On,
    Off,
}

impl Default for WorkersMode {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::On } else { Self::Off }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => {
            start_log(args.log);
            serve(args)
        }
        #[cfg(target_os = "linux")]
        Command::RunModel { .. } => workers::run().map_err(anyhow::Error::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colour = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(colour);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[tokio::main]
async fn serve(args: Serve) -> anyhow::Result<()> {
    // An error would mean that a provider is installed already; ours is the only one there is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = reached_under(&args);
    let runtime = open_runtime(&args)?;
    let (data_dir, listen, names) = (args.data_dir, args.listen, args.names);
    let server = Server::start(Config { data_dir, listen, names, runtime }).await?;
    say_ready(&server, &host);
    wait_for_signal().await?;
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// How an operator would call this server.
fn reached_under(args: &Serve) -> String {
    let ip = args.listen.ip();
    let named = args.names.first().cloned();
    named.unwrap_or_else(|| match ip.is_unspecified() {
        true => link::system::host_name().unwrap_or_else(|| "localhost".to_owned()),
        false if ip.is_ipv6() => format!("[{ip}]"),
        false => ip.to_string(),
    })
}

fn open_runtime(args: &Serve) -> anyhow::Result<Runtime> {
    let library = match find_library(args.runtime.as_deref()) {
        Ok(library) => library,
        Err(error) if args.runtime.is_some() => return Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "running without ONNX Runtime: deferrals will be refused");
            return Ok(Runtime::None);
        }
    };
    match args.workers {
        #[cfg(target_os = "linux")]
        WorkersMode::On => {
            let named = args.memory_budget_mb.map(|mb| mb << 20);
            let half = || memory::allowed_bytes().map(|bytes| bytes / 2);
            let memory_bytes = named.or_else(half).unwrap_or(u64::MAX);
            let workers = Workers::new(&library, memory_bytes);
            Ok(Runtime::Workers(Arc::new(workers.context("cannot read ONNX Runtime's library")?)))
        }
        #[cfg(not(target_os = "linux"))]
        WorkersMode::On => anyhow::bail!("only Linux has workers; leave --workers away"),
        WorkersMode::Off => Ok(Runtime::Here(Arc::new(OrtBackend::open(&library)?))),
    }
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

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
