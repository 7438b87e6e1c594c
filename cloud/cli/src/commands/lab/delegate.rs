//! `outrigger lab delegate`.

use protocol::id::DeviceId;
use protocol::manifest::SignerKey;
use protocol::measurement::Delegation;
use std::path::PathBuf;

use crate::config::{Config, LAB_KEY, SIGNING_KEY, write_private};
use crate::errors::hinted;
use crate::output;
use crate::time::parse_span;

/// Arguments of `lab delegate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The lab's key, as `outrigger lab key` shows it there; this machine's own when absent.
    #[arg(value_name = "KEY", value_parser = parse_key)]
    key: Option<String>,
    /// How long it holds, for example 12h or 30d.
    #[arg(long = "for", default_value = "30d", value_name = "TIME", value_parser = parse_span)]
    span: u32,
    /// The id of a device that it holds for; every one that allows measurements when absent; repeatable.
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<DeviceId>,
    /// Write the delegation to this file, for `outrigger lab accept` on the lab's machine.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn parse_key(text: &str) -> Result<String, String> {
    let key = hex::decode(text).ok().and_then(|bytes| SignerKey::from_slice(&bytes));
    let key = key.ok_or("a lab key has 64 hexadecimal digits: outrigger lab key shows it")?;
    Ok(hex::encode(key.0))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let operator = config
        .key(SIGNING_KEY)?
        .ok_or_else(|| hinted("there is no signing key here", "outrigger login makes one"))?;
    let lab_key = match &args.key {
        Some(key) => key.clone(),
        None => hex::encode(config.ensure_key(LAB_KEY)?.public().0),
    };
    let expires_at_s = output::now_s() + i64::from(args.span);
    let delegation = Delegation { lab_key, devices: args.devices.clone(), expires_at_s };
    let signed = delegation.sign(&operator);
    if args.key.is_none() {
        config.keep_delegation(&signed)?;
    }
    let json = serde_json::to_string_pretty(&signed)?;
    match &args.output {
        Some(path) => write_private(path, json.as_bytes())?,
        None if args.key.is_some() => output::line(&json),
        None => {}
    }
    match &args.key {
        Some(_) => eprintln!("On the lab's machine: outrigger lab accept FILE"),
        None => eprintln!("This machine's lab key may have models measured."),
    }
    eprintln!("Devices let it where their agent.toml says: [lab] enabled = true");
    Ok(())
}
