//! `outrigger telemetry export`: sums that may be shown to others, since no device can be read off them.

use analytics::anonymity::{DEVICES_MIN, GroupBy, export};
use analytics::query::Query;
use serde_json::{Map, Value};
use std::path::PathBuf;

use crate::output;

/// Arguments of `telemetry export`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The dataset's folder.
    #[arg(long, value_name = "FOLDER")]
    dataset: PathBuf,
    /// Columns to group by, of day, model, version, placement, reason.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', default_value = "day,model")]
    by: Vec<GroupBy>,
    /// The fewest devices of a group that is shown.
    #[arg(long, value_name = "N", default_value_t = DEVICES_MIN, value_parser = clap::value_parser!(u32).range(2..))]
    devices_min: u32,
    /// Print a JSON object for each group.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let asked =
        async { export(&Query::open(&args.dataset).await?, &args.by, args.devices_min).await };
    let answer = super::runtime()?.block_on(asked)?;
    if args.json {
        for row in answer.rows {
            let pairs = answer.columns.iter().cloned().zip(row.into_iter().map(Value::String));
            output::line(&Value::Object(pairs.collect::<Map<_, _>>()).to_string());
        }
        return Ok(());
    }
    let columns: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
    let empty = format!("no group of {} devices or more", args.devices_min);
    output::table(&columns, answer.rows, &empty);
    Ok(())
}
