//! `outrigger device token`.

use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;

use crate::client::Client;
use crate::config::{Config, write_private};
use crate::errors::hinted;
use crate::output;

/// Arguments of `device token`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the token is good for, for example 30m, 1h or 7d.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_ttl)]
    ttl: u32,
    /// What the device will be called; its host name when absent.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// Write the token to a file that only you can read, instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

/// Seconds.
fn parse_ttl(text: &str) -> Result<u32, String> {
    let invalid = || format!("{text:?} is no time; write for example 30m, 1h or 7d");
    let unit = text.chars().next_back().ok_or_else(invalid)?;
    let seconds: u32 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(invalid()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| invalid())?;
    number.checked_mul(seconds).filter(|s| *s > 0).ok_or_else(invalid)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = json!({ "ttl_s": args.ttl, "label": args.label }).to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text| parse_ttl(text).ok();
        assert_eq!(["90s", "30m", "1h", "7d"].map(check), [90, 1800, 3600, 604_800].map(Some));
        for bad in ["", "1", "h", "0h", "-1h", "1.5h", "99999999d", "1ü"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
