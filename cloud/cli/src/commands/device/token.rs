//! `outrigger device token`.

use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;

use crate::client::Client;
use crate::config::{Config, write_private};
use crate::errors::hinted;
use crate::output;
use crate::time::parse_span;

/// Arguments of `device token`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the token is good for, for example 30m, 1h or 7d.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_span)]
    ttl: u32,
    /// What the device will be called; its host name when absent.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// Whom the device will belong to.
    #[arg(long, default_value = "default", value_name = "TENANT")]
    tenant: String,
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
    let body = json!({ "ttl_s": args.ttl, "label": args.label, "tenant": args.tenant }).to_string();
    let answer: Answer = client.send("POST", "/v1/tokens", body.as_bytes())?;
    let file = match &args.output {
        None => {
            output::line(&answer.token);
            "FILE".to_owned()
        }
        Some(path) => {
            write_private(path, format!("{}\n", answer.token).as_bytes()).map_err(|error| {
                hinted(format!("{error:#}"), "the token is lost; make another with -o elsewhere")
            })?;
            path.display().to_string()
        }
    };
    eprintln!("It is good for one device. On the device:");
    eprintln!("next: outrigger-agent enrol --cloud {} --token-file {file}", client.cloud());
    Ok(())
}
