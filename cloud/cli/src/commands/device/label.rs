//! `outrigger device label`.

use protocol::id::DeviceId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::str::FromStr;

use super::parse_label;
use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `device label`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The device.
    #[arg(value_name = "ID")]
    device: DeviceId,
    /// Labels to give, and with a dash behind them to take away.
    #[arg(required = true, value_name = "KEY=VALUE | KEY-")]
    changes: Vec<Change>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A label that is given or taken away.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Set(String, String),
    Remove(String),
}

impl FromStr for Change {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('-') {
            Some(key) if !text.contains('=') && !key.is_empty() => Ok(Self::Remove(key.to_owned())),
            _ => parse_label(text).map(|(key, value)| Self::Set(key, value)),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let (mut set, mut remove) = (BTreeMap::new(), Vec::new());
    for change in &args.changes {
        match change {
            Change::Set(key, value) => drop(set.insert(key, value)),
            Change::Remove(key) => remove.push(key),
        }
    }
    let body = json!({ "set": set, "remove": remove }).to_string();
    let path = format!("/v1/devices/{}/labels", args.device);
    let answer: Value = client.send("PUT", &path, body.as_bytes())?;
    if args.json {
        output::json(&answer);
        return Ok(());
    }
    let labels: BTreeMap<String, String> = serde_json::from_value(answer["labels"].clone())?;
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = if labels.is_empty() { "no labels".to_owned() } else { labels.join(" ") };
    output::line(&format!("{}: {labels}", args.device));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_behind_takes_away() {
        let check = |text: &str| text.parse::<Change>().ok();
        assert_eq!(check("site=lyon"), Some(Change::Set("site".into(), "lyon".into())));
        assert_eq!(check("site-"), Some(Change::Remove("site".into())));
        assert_eq!(check("site=a-"), Some(Change::Set("site".into(), "a-".into())));
        for bad in ["", "-", "site", "=x", "arch=x", "or=x"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
