//! `outrigger model calibrate`: from which confidence on an edge answer is accepted, at a stated risk.

use indicatif::{ProgressBar, ProgressStyle};
use models::authoring::{Author, BuildError};
use protocol::manifest::{Bound, Calibration, Truth};
use serde_json::json;
use std::path::{Path, PathBuf};

use super::dataset;
use crate::errors::hinted;
use crate::output;
use crate::runtime::RuntimeArgs;

/// Arguments of `model calibrate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder with model.toml and both variants; the record stays there, and `push` signs it.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Labelled data that nothing else was chosen on: a folder with data.toml or model.toml, or such a
    /// file. Without labels the cloud's answers are taken for right.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// The largest share of accepted answers that may be wrong where the cloud is right.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    risk: f64,
    /// With which probability over the draw of the data that must hold.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let author = Author::open(&args.folder)?;
    let data = dataset(&args.data)?;
    let backend = args.runtime.open()?;
    let bar = ProgressBar::new(data.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} items, {eta} to go")?);
    let wanted = (args.risk, args.confidence);
    let made = author.calibrate(&data, wanted, &backend, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    let calibration = made.map_err(|error| explained(error, &args.folder))?;
    let path = author.record(&calibration)?;
    match args.json {
        true => output::json(&json!({ "file": path, "calibration": calibration })),
        false => show(&calibration, &path),
    }
    Ok(())
}

fn explained(error: BuildError, folder: &Path) -> anyhow::Error {
    let BuildError::Calibrate(cause) = error else {
        return anyhow::Error::from(error)
            .context(format!("cannot calibrate {}", folder.display()));
    };
    hinted(cause.to_string(), cause.hint())
}

fn show(calibration: &Calibration, path: &Path) {
    if let (Some(bound), Some(rule)) = (&calibration.bound, &calibration.rule) {
        let row = vec![
            rule.score.as_str().to_owned(),
            format!("{:.4}", calibration.threshold),
            output::percent(Some(calibration.deferral_rate)),
            output::exact_percent(bound.risk),
            output::exact_percent(bound.confidence),
            format!("{} of {}", bound.items.errors, bound.items.accepted),
            bound.strict_threshold.map_or_else(|| "none".to_owned(), |t| format!("{t:.4}")),
        ];
        let header =
            ["score", "threshold", "deferral", "risk", "held with", "errors seen", "stricter"];
        output::table(&header, vec![row], "");
        output::line("");
        tell_data(bound, calibration);
    }
    if let Some(reliability) = &calibration.reliability {
        let row = |bin: &protocol::manifest::ReliabilityBin| {
            let percent = |share| output::percent(Some(share));
            vec![percent(bin.confidence), percent(bin.accuracy), bin.items.to_string()]
        };
        let rows = reliability.bins.iter().map(row).collect();
        output::table(&["confidence", "right", "items"], rows, "");
        output::line(&format!(
            "\ncalibration error {:.2} % (plain softmax: {:.2} %)",
            reliability.ece_after * 100.0,
            reliability.ece_before * 100.0
        ));
    }
    output::line(&format!("written   {}", path.display()));
    eprintln!("next: outrigger model push signs it with the bundle");
}

fn tell_data(bound: &Bound, calibration: &Calibration) {
    let items = bound.items;
    output::line(&format!(
        "items     {} to fit, {} to choose the score, {} for the bound",
        items.fit, items.selection, items.bound
    ));
    output::line(&format!("method    {}", calibration.method));
    let meaning = match bound.truth {
        Truth::Labels => "the share of accepted answers that are wrong where the cloud is right",
        Truth::Cloud => {
            "only how often accepted answers differ from the cloud's: the data have no labels"
        }
    };
    output::line(&format!("bounds    {meaning}"));
    if let Some(share) = bound.disagreement() {
        let share = output::percent(Some(share));
        output::line(&format!(
            "differ    at most {share} of accepted answers differ from the cloud's\n"
        ));
    }
}
