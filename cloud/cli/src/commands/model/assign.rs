//! `outrigger model assign`.

use protocol::id::{DeviceId, ModelName, Variant, Version};
use serde_json::{Value, json};
use std::str::FromStr;

use super::bundles;
use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Arguments of `model assign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, for example fashion or fashion@3; without a version the newest.
    #[arg(value_name = "NAME[@VERSION]")]
    model: Wanted,
    #[command(flatten)]
    target: Target,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The device that should run it, whatever is assigned to all.
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// Every device should run it, also those that enrol later.
    #[arg(long)]
    all: bool,
}

/// A model, with or without a version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) model: ModelName,
    pub(crate) version: Option<Version>,
}

impl FromStr for Wanted {
    type Err = protocol::id::InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('@') {
            None => Ok(Self { model: text.parse()?, version: None }),
            Some((model, version)) => {
                Ok(Self { model: model.parse()?, version: Some(version.parse()?) })
            }
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let Wanted { model, version } = &args.model;
    let version = version.map_or_else(|| newest(&client, model), Ok)?;
    let device = args.target.device.as_ref();
    let body = json!({ "model": model, "version": version, "device": device });
    let answer: Value = client.send("PUT", "/v1/assignments", body.to_string().as_bytes())?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let whom = device.map_or_else(|| "all devices".to_owned(), ToString::to_string);
    output::line(&format!("{model}@{version} is assigned to {whom}"));
    eprintln!("next: outrigger device list");
    Ok(())
}

pub(crate) fn newest(client: &Client, model: &ModelName) -> anyhow::Result<Version> {
    let bundles = bundles(client)?;
    let edge = bundles.iter().filter(|b| b.model == *model && b.variant == Variant::Edge);
    edge.map(|b| b.version).max().ok_or_else(|| {
        let what = format!("the cloud has no edge variant of {model}");
        hinted(what, "see what there is: outrigger model list")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_with_or_without_a_version() {
        let check = |text: &str| {
            let wanted: Wanted = text.parse().ok()?;
            Some((wanted.model.to_string(), wanted.version.map(Version::get)))
        };
        assert_eq!(check("fashion"), Some(("fashion".into(), None)));
        assert_eq!(check("fashion@3"), Some(("fashion".into(), Some(3))));
        for bad in ["", "@1", "fashion@", "fashion@0", "fashion@x", "a@1@2"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
