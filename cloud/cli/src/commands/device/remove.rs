//! `outrigger device remove`.

use protocol::id::DeviceId;
use serde_json::Value;
use std::io::{IsTerminal, stdin};

use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Arguments of `device remove`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The device.
    #[arg(value_name = "ID")]
    device: DeviceId,
    /// Do not ask whether that is meant.
    #[arg(long)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let path = format!("/v1/devices/{}", args.device);
    let device: Value = client.get(&path)?;
    if !args.yes && !is_meant(&args.device, device["name"].as_str().unwrap_or_default())? {
        return Err(hinted("nothing was removed", "type the device's id, or give --yes"));
    }
    let answer: Value = client.send("DELETE", &path, b"")?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    output::line(&format!("{} is removed; it can come back by enrolling again", args.device));
    Ok(())
}

/// Asks for the id; where nobody can be asked, nothing is meant.
fn is_meant(device: &DeviceId, name: &str) -> anyhow::Result<bool> {
    if !stdin().is_terminal() {
        return Ok(false);
    }
    eprintln!("This forgets {device} ({name}) for good: it must enrol again to come back.");
    eprint!("Type its id to go on: ");
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    Ok(typed.trim() == device.as_str())
}
