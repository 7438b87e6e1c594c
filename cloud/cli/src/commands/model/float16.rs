//! `outrigger model float16`: half the bits for every float, for GPUs.

use anyhow::Context;
use compress::float16::{Halved, convert};
use compress::fold::fold;
use compress::measure::{Items, Reference};
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::compress::figures;
use super::dataset;
use crate::output;
use crate::runtime::RuntimeArgs;

/// The most items whose values are looked at.
const SEEN_MAX: usize = 32;
/// The most items that the result is compared on.
const COMPARED_MAX: usize = 256;

/// Arguments of `model float16`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The float model.
    #[arg(value_name = "IN.onnx")]
    onnx: PathBuf,
    /// Data that show how large values become: a folder with data.toml or model.toml, or such a file. Every second item
    /// is for the figures.
    #[arg(long, value_name = "DATA")]
    calibration: PathBuf,
    /// A node that stays in float32, by its first output; may be given again.
    #[arg(long, value_name = "OUTPUT")]
    keep_float: Vec<String>,
    /// The model in float16.
    #[arg(long, short, value_name = "OUT.onnx")]
    out: PathBuf,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let what = || format!("cannot convert {}", args.onnx.display());
    let backend = args.runtime.open()?;
    let calibration = dataset(&args.calibration)?;
    let mut session = backend.load(&args.onnx, &SessionOptions::default())?;
    let data = calibration.for_model(session.inputs())?;
    let items: &Items<'_> = &|item| Ok(data.inputs(item)?);
    let compared: Vec<usize> = (1..calibration.len()).step_by(2).take(COMPARED_MAX).collect();
    let reference = Reference::new(&mut *session, items, &compared, calibration.labels())?;
    drop(session);
    let mut model = Model::read(&args.onnx).with_context(what)?;
    fold(&mut model, &backend).with_context(what)?;
    let chosen: Vec<usize> = (0..calibration.len()).step_by(2).take(SEEN_MAX).collect();
    let named = args.keep_float.iter().cloned().collect();
    let halved = convert(&model, &named, (items, &chosen), &backend).with_context(what)?;
    halved.model.write(&args.out).with_context(what)?;
    let quality = {
        let mut session = backend.load(&args.out, &SessionOptions::default())?;
        reference.compare(&mut *session, items, &compared)?
    };
    let (before, after) = (args.onnx.metadata()?.len(), args.out.metadata()?.len());
    if args.json {
        output::json(&json!({
            "nodes": halved.nodes, "left": halved.left, "original_bytes": before, "size_bytes": after,
            "float": reference.own(), "float16": quality, "model": args.out,
        }));
        return Ok(());
    }
    let rows = reasons(&halved);
    output::table(&["in float32", "nodes", "because"], rows, "Every node computes in float16");
    output::line(&format!("\nsize    {} of {}", output::size(after), output::size(before)));
    output::line(&format!("unseen  {}", figures(&quality)));
    output::line(&format!("model   {}", args.out.display()));
    Ok(())
}

/// Nodes that stay in `float32`, by operator and reason.
fn reasons(halved: &Halved) -> Vec<Vec<String>> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for left in &halved.left {
        *counts.entry((&left.operator, left.reason)).or_default() += 1;
    }
    let row = |((operator, reason), count): ((&str, &str), usize)| {
        vec![operator.to_owned(), count.to_string(), reason.to_owned()]
    };
    counts.into_iter().map(row).collect()
}
