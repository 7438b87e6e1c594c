//! `outrigger model diff`: how one ONNX file differs from another.

use anyhow::Context;
use compress::diff::{Diff, Weight, diff};
use models::onnx::Model;
use std::path::PathBuf;

use crate::output;

/// Arguments of `model diff`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ONNX file to compare with.
    #[arg(value_name = "A.onnx")]
    before: PathBuf,
    /// The other.
    #[arg(value_name = "B.onnx")]
    after: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let read = |path: &PathBuf| {
        Model::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let found = diff(&read(&args.before)?, &read(&args.after)?);
    match args.json {
        true => output::json(&serde_json::to_value(&found)?),
        false => show(&found),
    }
    Ok(())
}

fn show(found: &Diff) {
    if found.is_empty() {
        output::line("the same inputs, outputs, operators and weights");
        return;
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    rows.extend(
        found.interface.iter().map(|(what, a, b)| vec![what.clone(), a.clone(), b.clone()]),
    );
    let count =
        |(op, (a, b)): (&String, &(usize, usize))| vec![op.clone(), a.to_string(), b.to_string()];
    rows.extend(found.operators.iter().map(count));
    let sum = |what: &str, a: String, b: String| vec![what.to_owned(), a, b];
    rows.push(sum("parameters", found.parameters.0.to_string(), found.parameters.1.to_string()));
    let size = |bytes: usize| output::size(bytes as u64);
    rows.push(sum("weights", size(found.weight_bytes.0), size(found.weight_bytes.1)));
    output::table(&["", "before", "after"], rows, "");
    output::line("");
    let row = |weight: &Weight| {
        vec![
            weight.name.clone(),
            weight.before.clone().unwrap_or_else(|| "-".to_owned()),
            weight.after.clone().unwrap_or_else(|| "-".to_owned()),
            weight.distance.map_or_else(|| "-".to_owned(), |distance| format!("{distance:.4}")),
        ]
    };
    let rows = found.weights.iter().map(row).collect();
    let empty = format!("All {} weights are the same", found.same_weights);
    output::table(&["weights", "before", "after", "moved by"], rows, &empty);
    if found.grids > 0 {
        output::line(&format!("and {} scales and zero points of integers", found.grids));
    }
}
