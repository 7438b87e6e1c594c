//! `outrigger usage`.

use clap::ValueEnum;
use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;
use crate::time::parse_span;

/// Arguments of `usage`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// By what to sum.
    #[arg(long, default_value = "tenant", value_name = "WHAT")]
    by: By,
    /// How far back, for example 12h or 30d; whole hours are counted.
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = parse_span)]
    since: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Tenant,
    Key,
    Model,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            By::Tenant => "tenant",
            By::Key => "key",
            By::Model => "model",
        }
    }
}

#[derive(Deserialize)]
struct Line {
    of: String,
    requests: u64,
    refused: u64,
    compute_us: u64,
    bytes_in: u64,
    bytes_out: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let (by, from) = (args.by.as_str(), output::now_s() - i64::from(args.since));
    let usage = client.list(&format!("/v1/usage?by={by}&from={from}"), "usage")?;
    if args.json {
        output::json(&usage);
        return Ok(());
    }
    let lines: Vec<Line> = serde_json::from_value(usage)?;
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let row = |line: Line| {
        let compute = format!("{:.3} s", line.compute_us as f64 / 1e6);
        let (requests, refused) = (line.requests.to_string(), line.refused.to_string());
        let (bytes_in, bytes_out) = (output::size(line.bytes_in), output::size(line.bytes_out));
        let of = if line.of.is_empty() { "(unknown)".to_owned() } else { line.of };
        vec![of, requests, refused, compute, bytes_in, bytes_out]
    };
    let header = [by, "requests", "unanswered", "compute", "in", "out"];
    output::table(&header, lines.into_iter().map(row).collect(), "Nothing was asked.");
    Ok(())
}
