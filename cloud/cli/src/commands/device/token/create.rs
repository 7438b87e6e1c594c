//! `outrigger device token`.

use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::client::Client;
use crate::commands::device::parse_label;
use crate::config::Config;
use crate::time::parse_span;
use crate::token_file;

/// Arguments of `device token`.
#[derive(clap::Args)]
#[group(skip)] // it is flattened into others of that name
pub(crate) struct Args {
    /// How long the token is good for, for example 30m, 1h or 7d.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_span)]
    ttl: u32,
    /// How many devices it lets in, each with a key of its own.
    #[arg(long, default_value = "1", value_name = "N")]
    count: u32,
    /// What the device will be called, {n} in it the number of the device; its host name when absent.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// Whom the device will belong to.
    #[arg(long, default_value = "default", value_name = "TENANT")]
    tenant: String,
    /// A label of the device, for queries; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Write the token to a file that only you can read, instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let Args { ttl, count, label, tenant, .. } = args;
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    let mut body = json!({ "ttl_s": ttl, "count": count, "label": label, "tenant": tenant });
    if !labels.is_empty() {
        body["labels"] = json!(labels); // an older cloud knows none
    }
    let answer: Answer = client.send("POST", "/v1/tokens", body.to_string().as_bytes())?;
    let file = token_file::hand_out(&answer.token, args.output.as_deref())?;
    match count {
        1 => eprintln!("It is good for one device. On the device:"),
        many => eprintln!("It is good for {many} devices. On each of them:"),
    }
    eprintln!("next: outrigger-agent enrol --cloud {} --token-file {file}", client.cloud());
    Ok(())
}
