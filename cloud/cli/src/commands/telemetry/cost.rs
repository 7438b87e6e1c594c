//! `outrigger telemetry cost`: what devices send, by class, and what that makes in a month.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::client::Client;
use crate::config::Config;
use crate::output;

const DAY_S: i64 = 86_400;
/// Days of the month that is forecast.
const MONTH_DAYS: f64 = 30.0;

/// Arguments of `telemetry cost`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Over the last days.
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..=365))]
    days: i64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A segment as the API lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: i64,
    device: String,
    class: String,
    records: u64,
    size_bytes: u64,
    received_at_s: i64,
}

/// What one class has cost.
#[derive(Debug, Default, Clone)]
struct Cost {
    segments: u64,
    records: u64,
    bytes: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let from_s = output::now_s() - args.days * DAY_S;
    let (mut after, mut first_s) = (0, i64::MAX);
    let (mut classes, mut devices) = (BTreeMap::<String, Cost>::new(), BTreeSet::new());
    loop {
        let path = format!("/v1/telemetry/segments?after={after}");
        let listed: Vec<Listed> = serde_json::from_value(client.list(&path, "segments")?)?;
        let Some(last) = listed.last() else { break };
        after = last.id;
        for segment in listed.into_iter().filter(|segment| segment.received_at_s >= from_s) {
            let cost = classes.entry(segment.class).or_default();
            cost.segments += 1;
            cost.records += segment.records;
            cost.bytes += segment.size_bytes;
            first_s = first_s.min(segment.received_at_s);
            devices.insert(segment.device);
        }
    }
    let days = measured_days(first_s);
    show(&classes, devices.len(), days, args.json);
    Ok(())
}

/// The days that were measured: since the first segment of them, at least an hour.
#[allow(clippy::cast_precision_loss)] // seconds of a year at most
fn measured_days(first_s: i64) -> f64 {
    let measured_s = output::now_s().saturating_sub(first_s).max(3600);
    measured_s as f64 / DAY_S as f64
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a forecast
fn month(bytes: u64, devices: usize, days: f64) -> u64 {
    (bytes as f64 / devices.max(1) as f64 / days * MONTH_DAYS) as u64
}

fn show(classes: &BTreeMap<String, Cost>, devices: usize, days: f64, as_json: bool) {
    let total: u64 = classes.values().map(|cost| cost.bytes).sum();
    if as_json {
        let class = |(class, cost): (&String, &Cost)| {
            json!({
                "class": class, "segments": cost.segments, "records": cost.records, "bytes": cost.bytes,
                "month_bytes_per_device": month(cost.bytes, devices, days),
            })
        };
        let classes: Vec<Value> = classes.iter().map(class).collect();
        let told = json!({
            "devices": devices, "days": days, "classes": classes, "bytes": total,
            "month_bytes_per_device": month(total, devices, days),
        });
        return output::json(&told);
    }
    let row = |name: &str, cost: &Cost| {
        let forecast = output::size(month(cost.bytes, devices, days));
        vec![
            name.to_owned(),
            cost.segments.to_string(),
            cost.records.to_string(),
            output::size(cost.bytes),
            forecast,
        ]
    };
    let mut rows: Vec<_> = classes.iter().map(|(class, cost)| row(class, cost)).collect();
    if rows.len() > 1 {
        let sum = |of: fn(&Cost) -> u64| classes.values().map(of).sum();
        let all = Cost { segments: sum(|c| c.segments), records: sum(|c| c.records), bytes: total };
        rows.push(row("all", &all));
    }
    let header = ["class", "segments", "records", "sent", "a month, each device"];
    output::table(&header, rows, "devices have sent nothing in these days");
    eprintln!(
        "{devices} devices, {days:.1} days measured; segments as they are sent, without the connection's own bytes"
    );
}
