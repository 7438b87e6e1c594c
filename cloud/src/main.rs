//! `outrigger-cloud`: the server of a fleet, in one process and one folder.

use clap::{Parser, Subcommand};
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
    /// Say which settings hold and where each comes from, or what is wrong with them.
    CheckConfig(commands::check_config::Args),
    /// Print the admin API's OpenAPI document.
    Openapi,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => commands::serve::run(args),
        Command::CheckConfig(args) => commands::check_config::run(args),
        Command::Openapi => commands::openapi::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
