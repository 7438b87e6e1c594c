//! `outrigger-cloud`: the server of a fleet, in one process and one folder.

use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use outrigger_cloud::workers;
use std::process::ExitCode;

mod commands;

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
    Serve(commands::serve::Args),
    /// Run one model, for the server that starts this.
    #[cfg(target_os = "linux")]
    #[command(name = workers::SUBCOMMAND, hide = true)]
    RunModel {
        /// A name for people who look at the list of processes.
        #[allow(dead_code)] // seen from outside only
        label: String,
    },
    /// Put everything that the server is into one encrypted file; the server may be running.
    Backup(commands::backup::Args),
    /// Make a server's folder out of a backup.
    Restore(commands::restore::Args),
    /// Put another fleet CA in the place of the one that there is, without touching a device.
    Ca(commands::ca::Args),
    /// Say which settings hold and where each comes from, or what is wrong with them.
    CheckConfig(commands::check_config::Args),
    /// Print the admin API's OpenAPI document.
    Openapi,
    /// Print alert rules for Prometheus.
    Alerts,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => commands::serve::run(args),
        #[cfg(target_os = "linux")]
        Command::RunModel { .. } => commands::run_model::run(),
        Command::Backup(args) => commands::backup::run(&args),
        Command::Restore(args) => commands::restore::run(&args),
        Command::Ca(args) => commands::ca::run(&args),
        Command::CheckConfig(args) => commands::check_config::run(args),
        Command::Openapi => commands::openapi::run(),
        Command::Alerts => Ok(commands::alerts::run()),
    };
    result.unwrap_or_else(|error| {
        commands::report(&error);
        ExitCode::FAILURE
    })
}
