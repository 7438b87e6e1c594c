//! `outrigger`: the operator's command. It ships models to a fleet and looks after its devices,
//! through the admin API of `outrigger-cloud` and nothing else.
//!
//! Data goes to stdout, everything else to stderr. [`commands`] has one file per command,
//! [`client`] the API, [`config`] what `login` left behind, [`probe`] the first contact with a
//! cloud that is known only by a hash, and [`output`] tables and words.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod client;
mod commands;
mod config;
mod errors;
mod output;
mod probe;

/// Ships models to a fleet of devices, and looks after it.
#[derive(Parser)]
#[command(name = "outrigger", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Meet a cloud, with a key that was made there.
    Login(commands::login::Args),
    /// Push, list and assign models.
    #[command(subcommand)]
    Model(Model),
    /// Let devices in, list them, and shut them out.
    #[command(subcommand)]
    Device(Device),
    /// Show who changed what.
    Audit(commands::audit::Args),
}

#[derive(Subcommand)]
enum Model {
    /// Build, sign and upload a new version from a folder with model.toml.
    Push(commands::model::push::Args),
    /// List what the cloud holds.
    List(commands::model::list::Args),
    /// Say which version one device, or every device, should run.
    Assign(commands::model::assign::Args),
}

#[derive(Subcommand)]
enum Device {
    /// Make a one-time token with which one device can enrol.
    Token(commands::device::token::Args),
    /// List devices: what they should run, and what they say they run.
    List(commands::device::list::Args),
    /// Shut a device out: its connection ends, and it cannot come back.
    Deny(commands::device::deny::Args),
    /// Let a device in again.
    Allow(commands::device::deny::Args),
}

fn main() -> ExitCode {
    // An error would mean that a provider is installed already; ours is the only one there is.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Login(args) => commands::login::run(&args),
        Command::Model(Model::Push(args)) => commands::model::push::run(&args),
        Command::Model(Model::List(args)) => commands::model::list::run(&args),
        Command::Model(Model::Assign(args)) => commands::model::assign::run(&args),
        Command::Device(Device::Token(args)) => commands::device::token::run(&args),
        Command::Device(Device::List(args)) => commands::device::list::run(&args),
        Command::Device(Device::Deny(args)) => commands::device::deny::run(&args, true),
        Command::Device(Device::Allow(args)) => commands::device::deny::run(&args, false),
        Command::Audit(args) => commands::audit::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errors::report(&error);
            ExitCode::FAILURE
        }
    }
}
