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
    /// Say which settings hold and where each comes from, or what is wrong with them.
    CheckConfig(commands::check_config::Args),
    /// Print the admin API's OpenAPI document.
    Openapi,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => commands::serve::run(args),
        #[cfg(target_os = "linux")]
        Command::RunModel { .. } => commands::run_model::run(),
        Command::CheckConfig(args) => commands::check_config::run(args),
        Command::Openapi => commands::openapi::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
