//! `outrigger agent assign`.

use protocol::id::DeviceId;
use protocol::release::ReleaseVersion;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `agent assign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    whom: Whom,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The version, for example 0.2.0.
    #[arg(value_name = "X.Y.Z")]
    version: Option<ReleaseVersion>,
    /// None any more: what runs goes on, and its owner decides.
    #[arg(long)]
    none: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The device that should run it, whatever is assigned to all.
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// Every device should run it, also those that enrol later.
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let (version, device) = (args.what.version, args.whom.device.as_ref());
    let body = json!({ "version": version, "device": device });
    let answer: Value = client.send("PUT", "/v1/agent/assignments", body.to_string().as_bytes())?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let whom = device.map_or_else(|| "all devices".to_owned(), ToString::to_string);
    let what = version.map_or("no version".to_owned(), |version| format!("version {version}"));
    output::line(&format!("{what} of the agent is assigned to {whom}"));
    eprintln!("next: outrigger agent status");
    Ok(())
}
