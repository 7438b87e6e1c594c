//! `outrigger model inspect`: what is in an ONNX file.

use anyhow::Context;
use compress::inspect::{Layer, Report, Value, inspect};
use models::onnx::Model;
use std::path::PathBuf;

use crate::errors::hinted;
use crate::output;
use crate::runtime::RuntimeArgs;

/// Arguments of `model inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The ONNX file.
    #[arg(value_name = "FILE.onnx")]
    file: PathBuf,
    /// The size of an input, for the multiplications of each layer; what the file leaves open counts as 1.
    #[arg(long = "shape", value_name = "INPUT=N,N,...")]
    shapes: Vec<String>,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let sizes = args.shapes.iter().map(|text| shape(text)).collect::<Result<_, _>>()?;
    let what = || format!("cannot inspect {}", args.file.display());
    let model = Model::read(&args.file).with_context(what)?;
    let backend = args.runtime.open()?;
    let report = inspect(&model, &sizes, &backend).with_context(what)?;
    if args.json {
        output::json(&serde_json::to_value(&report)?);
        return Ok(());
    }
    show(&report);
    Ok(())
}

fn shape(text: &str) -> anyhow::Result<(String, Vec<i64>)> {
    let parse = || {
        let (name, sizes) = text.split_once('=')?;
        let sizes = sizes.split(',').map(|size| size.trim().parse().ok().filter(|s| *s >= 0));
        Some((name.to_owned(), sizes.collect::<Option<Vec<i64>>>()?))
    };
    parse().ok_or_else(|| {
        let hint = "write --shape image=1,3,224,224";
        hinted(format!("{text:?} is no shape of an input"), hint)
    })
}

fn show(report: &Report) {
    let opsets = report.opsets.iter().map(|(domain, version)| match domain.as_str() {
        "" => version.to_string(),
        domain => format!("{domain} {version}"),
    });
    output::line(&format!("made by     {}", report.producer.trim()));
    output::line(&format!("opset       {}", opsets.collect::<Vec<_>>().join(", ")));
    output::line(&format!("parameters  {}", report.parameters));
    output::line(&format!("weights     {}", output::size(report.weight_bytes as u64)));
    output::line(&format!("MACs        {}", report.macs));
    let mut operators: Vec<_> = report.operators.iter().collect();
    operators.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let operators = operators.iter().map(|(op, count)| format!("{count} {op}"));
    output::line(&format!("operators   {}\n", operators.collect::<Vec<_>>().join(", ")));
    let value = |kind: &str, value: &Value| {
        vec![kind.to_owned(), value.name.clone(), value.datatype.clone(), dims(&value.shape)]
    };
    let rows = report.inputs.iter().map(|v| value("input", v));
    let rows = rows.chain(report.outputs.iter().map(|v| value("output", v))).collect();
    output::table(&["", "name", "type", "shape"], rows, "The model takes and gives nothing");
    output::line("");
    let layers = report.layers.iter().map(row).collect();
    let header = ["layer", "operator", "weights", "output", "parameters", "MACs"];
    output::table(&header, layers, "No layer has weights");
}

fn row(layer: &Layer) -> Vec<String> {
    vec![
        layer.name.clone(),
        layer.operator.clone(),
        format!("{} {}", layer.datatype, dims(&layer.weights)),
        layer.output.as_deref().map_or_else(|| "-".to_owned(), dims),
        layer.parameters.to_string(),
        layer.macs.map_or_else(|| "-".to_owned(), |macs| macs.to_string()),
    ]
}

fn dims(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", sizes.join(","))
}
