//! `outrigger model evaluate`: what models are worth on data.

use anyhow::Context;
use compress::evaluate::{Accuracy, Evaluation, evaluate};
use models::authoring::{Author, RECIPE_FILE};
use protocol::id::Variant;
use protocol::manifest::MODEL_FILE;
use std::path::{Path, PathBuf};

use super::dataset;
use crate::errors::hinted;
use crate::output;
use crate::runtime::RuntimeArgs;

/// Arguments of `model evaluate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A bundle's folder, a folder with model.toml (both variants), a folder that `compress` made, or an ONNX file.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Labelled data: a folder with data.toml or model.toml, or such a file.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Show every class.
    #[arg(long)]
    classes: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let data = dataset(&args.data)?;
    let backend = args.runtime.open()?;
    let mut found = Vec::new();
    for onnx in models(&args.bundle)? {
        let evaluation = evaluate(&onnx, &data, &backend);
        found.push(evaluation.with_context(|| format!("cannot evaluate {}", onnx.display()))?);
    }
    if args.json {
        output::json(&serde_json::to_value(&found)?);
        return Ok(());
    }
    show(&found);
    if args.classes {
        found.iter().for_each(show_classes);
    }
    Ok(())
}

/// The ONNX files that are meant.
fn models(bundle: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if bundle.is_file() {
        return Ok(vec![bundle.to_owned()]);
    }
    if bundle.join(RECIPE_FILE).is_file() {
        let author = Author::open(bundle)?;
        let variants = [Variant::Edge, Variant::Cloud];
        return Ok(variants.into_iter().filter_map(|variant| author.onnx(variant)).collect());
    }
    let onnx = bundle.join(MODEL_FILE);
    if onnx.is_file() {
        return Ok(vec![onnx]);
    }
    let hint = "give an ONNX file, or a folder with model.toml or model.onnx";
    Err(hinted(format!("there is no model in {}", bundle.display()), hint))
}

fn show(found: &[Evaluation]) {
    let row = |evaluation: &Evaluation| {
        vec![
            evaluation.onnx.display().to_string(),
            output::size(evaluation.size_bytes),
            format!("{:.0}", evaluation.latency_us.0),
            format!("{:.0}", evaluation.latency_us.1),
            evaluation.items.to_string(),
            evaluation.accuracy.as_ref().map_or_else(|| "no labels".to_owned(), interval),
        ]
    };
    let header = ["model", "size", "us p50", "us p95", "items", "accuracy"];
    output::table(&header, found.iter().map(row).collect(), "There is no model");
}

fn show_classes(evaluation: &Evaluation) {
    output::line(&format!("\n{}", evaluation.onnx.display()));
    let row = |(class, accuracy): &(usize, Accuracy)| {
        vec![class.to_string(), accuracy.items.to_string(), interval(accuracy)]
    };
    let rows = evaluation.classes.iter().map(row).collect();
    output::table(&["class", "items", "accuracy"], rows, "The data have no labels");
}

fn interval(accuracy: &Accuracy) -> String {
    let points = [accuracy.share, accuracy.low, accuracy.high].map(|share| share * 100.0);
    format!("{:.1} % ({:.1} to {:.1})", points[0], points[1], points[2])
}
