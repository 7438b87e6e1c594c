//! `outrigger-agent`: answers on the device, defers to the cloud, installs what it is told.
//!
//! How it hangs together, from the outside in:
//!
//! * [`serve`]: the local API (Open Inference Protocol) that applications call;
//! * [`requests`]: one request from arrival to answer, driven by `edge::offload`;
//! * [`engine`]: the models that answer now; [`evidence`]: what is told of how they do;
//! * [`install`]: from desired state to active model, driven by `edge::update`; [`sandbox`]: the
//!   confined child process in which a model is tried first;
//! * [`uplink`]: the connection to the cloud, and all that travels on it;
//! * [`state`], [`identity`], [`config`]: what is kept on disk; [`reload`]: the configuration read
//!   again; [`logging`]: the log and its level;
//! * [`inventory`]: what the machine is, for queries over a fleet;
//! * [`clock`]: what time it is, where the system's clock may be wrong;
//! * [`telemetry`]: what is told to the operator, sealed;
//! * [`counters`]: what is counted; [`metrics`]: how Prometheus reads it;
//! * [`health`]: the device checked by itself, for whoever has to repair it;
//! * [`support`]: what somebody needs who helps from afar;
//! * [`program`]: which file of this program runs, and how the next one takes over;
//! * [`service`], [`notify`]: the agent as a service of the system;
//! * [`lock`], [`reset`]: one agent per state folder, and the way out of a fleet.

mod audits;
mod clock;
mod commands;
mod config;
mod counters;
mod engine;
mod evidence;
mod health;
mod identity;
mod install;
mod inventory;
mod key;
mod lab;
mod lock;
mod logging;
mod metrics;
mod notify;
mod peers;
mod program;
mod questions;
mod reload;
mod repository;
mod requests;
mod reset;
mod sandbox;
mod sequences;
mod serve;
mod service;
mod state;
mod support;
mod telemetry;
mod uplink;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "outrigger-agent",
    version = program::version(),
    about = "Runs AI models on this device and asks the cloud where they are not sure."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key on this device and buy a certificate for it with a one-time token.
    Enrol(commands::enrol::Args),
    /// Set this device up in one step: configuration, enrolment, and a service that starts by itself.
    Install(commands::install::Args),
    /// Take the service and the program off this device; what it knows stays unless --purge.
    Uninstall(commands::uninstall::Args),
    /// Leave the fleet: forget key, certificate and trusted keys; keep the models.
    Unenrol(commands::Irrevocable),
    /// Forget everything: empty the state folder.
    FactoryReset(commands::Irrevocable),
    /// Serve applications on this device.
    Run(commands::run::Args),
    /// Show what this device runs and how it is doing.
    Status(commands::status::Args),
    /// Check this device: what works, what does not, and what to do about it.
    Check(commands::check::Args),
    /// Write an archive for whoever helps with this device; no secrets inside.
    SupportBundle(commands::support_bundle::Args),
    /// Bundles that crashed, hung or took too much when they were tried.
    Quarantine(commands::quarantine::Args),
    /// Try a model in this process and say what came of it; the agent's own child.
    #[command(name = sandbox::SUBCOMMAND, hide = true)]
    ProveModel,
    /// Say version and target; what an agent asks of the program that is to take its place.
    #[command(name = program::SAY, hide = true)]
    SayWhatThisIs,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Enrol(args) => commands::enrol::run(&args),
        Command::Install(args) => commands::install::run(&args),
        Command::Uninstall(args) => commands::uninstall::run(&args),
        Command::Unenrol(args) => commands::unenrol::run(&args),
        Command::FactoryReset(args) => commands::factory_reset::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Check(args) => commands::check::run(&args),
        Command::SupportBundle(args) => commands::support_bundle::run(&args),
        Command::Quarantine(args) => commands::quarantine::run(&args),
        Command::ProveModel => {
            sandbox::child::run().map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Command::SayWhatThisIs => {
            println!("{}", program::own_mark());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        commands::report(&error);
        ExitCode::FAILURE
    })
}
