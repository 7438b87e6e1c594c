//! `outrigger device deny` and `outrigger device allow`.

use protocol::id::DeviceId;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of both.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The device.
    #[arg(value_name = "ID")]
    device: DeviceId,
}

pub(crate) fn run(args: &Args, denied: bool) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let path = format!("/v1/devices/{}/denied", args.device);
    let body = json!({ "denied": denied }).to_string();
    client.send::<Value>("PUT", &path, body.as_bytes())?;
    let what = if denied { "is shut out" } else { "may connect again" };
    output::line(&format!("{} {what}", args.device));
    Ok(())
}
