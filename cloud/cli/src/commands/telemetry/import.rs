//! `outrigger telemetry import`: opens what was pulled, and puts each record into a Parquet dataset once.

use analytics::dataset::Dataset;
use analytics::import::{Import, Sealed, SegmentError};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;

use super::decrypt::{KeysArgs, detached, find};
use crate::errors::hinted;
use crate::output;

/// Arguments of `telemetry import`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Segments, or folders with segments, as `outrigger telemetry pull` leaves them.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The dataset's folder; made where there is none.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    #[command(flatten)]
    keys: KeysArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let keys = args.keys.open()?;
    if keys.is_empty() {
        return Err(hinted(
            "no analytics key at hand",
            "outrigger telemetry key makes one, --key FILE names one",
        ));
    }
    let mut files = Vec::new();
    for path in &args.paths {
        find(path, &mut files)?;
    }
    files.sort(); // by device, and by number
    let mut dataset = Dataset::open(&args.into)?;
    let now_unix_ms = u64::try_from(output::now_s()).context("the clock of this machine")? * 1000;
    let mut import = Import::begin(&mut dataset, &keys, now_unix_ms);
    let bar = ProgressBar::new(files.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "opening {bar:30} {pos} of {len} segments, {eta} to go",
    )?);
    let mut unopened = 0_usize;
    for file in &files {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match import.add(Sealed { bytes: &bytes, detached_key: detached(file) }) {
            Ok(()) => {}
            Err(SegmentError::Dataset(error)) => return Err(error.into()),
            Err(error) => {
                bar.suspend(|| {
                    eprintln!("{}: {}", file.display(), protocol::problem::chain(&error));
                });
                unopened += 1;
            }
        }
        bar.inc(1);
    }
    let report = import.finish()?;
    bar.finish_and_clear();
    if args.json {
        let told = json!({ "segments": report.segments, "known": report.known, "rows": report.rows, "unopened": unopened });
        output::line(&told.to_string());
    } else {
        eprintln!(
            "{} rows of {} segments are new, {} segments were known",
            report.rows, report.segments, report.known
        );
    }
    match unopened {
        0 => Ok(()),
        _ => Err(hinted(
            format!("{unopened} of {} segments were not opened", files.len()),
            "each is named above, with the reason; what opened is imported",
        )),
    }
}
