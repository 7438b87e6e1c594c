//! `outrigger telemetry key`: makes the analytics key, and tells devices of its public half.

use anyhow::Context;
use protocol::analytics::{SignedStatement, Statement, TARGET};
use serde_json::{Value, json};
use telemetry::key::PrivateKey;

use crate::client::Client;
use crate::config::{Config, SIGNING_KEY};
use crate::errors::hinted;
use crate::output;
use crate::repository::{KeysArgs, Named, name_as_good};

/// Arguments of `telemetry key`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make another key, for what is recorded from now on; the one before still opens what is older.
    #[arg(long)]
    rotate: bool,
    /// Show which key devices were told of, and change nothing.
    #[arg(long, conflicts_with = "rotate")]
    show: bool,
    #[command(flatten)]
    keys: KeysArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let told = told(&client)?;
    if args.show {
        return show(&config, told.as_ref(), args.json);
    }
    let operator = config
        .key(SIGNING_KEY)?
        .ok_or_else(|| hinted("there is no signing key here", "outrigger login makes one"))?;
    let key = ensure(&config, args.rotate)?;
    let public_key = hex::encode(key.public().to_bytes());
    if told.as_ref().is_some_and(|told| told.public_key == public_key) {
        eprintln!("Devices were told of this key before.");
        return show(&config, told.as_ref(), args.json);
    }
    // Seconds grow by themselves, and no cloud can bring them to an end.
    let serial = u64::try_from(output::now_s()).context("the clock of this machine")?;
    let signed = Statement { public_key, serial }.sign(&operator);
    // In a fleet that has a repository, devices believe a statement that its targets name.
    let named = Named::from([(TARGET.to_owned(), signed.to_json())]);
    name_as_good(&client, &config, &args.keys, &named)?;
    let _: Value = client.send("PUT", "/v1/telemetry/key", &signed.to_json())?;
    show(&config, Some(&signed.read()?), args.json)
}

fn told(client: &Client) -> anyhow::Result<Option<Statement>> {
    let mut answer: Value = client.get("/v1/telemetry/key")?;
    let Some(signed) = Some(answer["key"].take()).filter(|key| !key.is_null()) else {
        return Ok(None);
    };
    let signed: SignedStatement = serde_json::from_value(signed)?;
    Ok(Some(signed.read()?))
}

/// The key at hand; made where there is none.
fn ensure(config: &Config, rotate: bool) -> anyhow::Result<PrivateKey> {
    match config.analytics_keys()?.into_iter().next() {
        Some(key) if !rotate => Ok(key),
        before => config.make_analytics_key(before.as_ref()),
    }
}

fn show(config: &Config, told: Option<&Statement>, as_json: bool) -> anyhow::Result<()> {
    let at_hand: Vec<String> =
        config.analytics_keys()?.iter().map(|key| hex::encode(key.public().to_bytes())).collect();
    if as_json {
        let told = told.map(|told| json!({ "public_key": told.public_key, "serial": told.serial }));
        output::line(&json!({ "devices_seal_for": told, "at_hand": at_hand }).to_string());
        return Ok(());
    }
    match told {
        None => output::line("devices keep nothing but counters: they know of no analytics key"),
        Some(told) => {
            output::line(&format!("devices seal for {}", told.public_key));
            if !at_hand.contains(&told.public_key) {
                eprintln!("Its private half is not in {}.", config.folder().display());
            }
        }
    }
    Ok(())
}
