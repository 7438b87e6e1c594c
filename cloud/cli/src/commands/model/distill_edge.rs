//! `outrigger model distill-edge`: an edge variant out of one model, cut early, with a fitted head.

use anyhow::Context;
use compress::distill::{Distilled, Options, Place, Split, distill};
use compress::fold::fold;
use compress::measure::{Items, Reference, latency};
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

use super::compress::{figures, percent};
use super::dataset;
use crate::output;
use crate::runtime::RuntimeArgs;

/// Arguments of `model distill-edge`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The large model: a classifier in float.
    #[arg(value_name = "IN.onnx")]
    onnx: PathBuf,
    /// Data to fit the head and to choose the place with; labels are used to judge where they are there.
    #[arg(long, value_name = "DATA")]
    calibration: PathBuf,
    /// How many answers may get worse; the earliest place within it is taken, else the nearest.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    target_drop: f64,
    /// Cut after this value, instead of choosing.
    #[arg(long, value_name = "VALUE")]
    after: Option<String>,
    /// The edge variant.
    #[arg(long, short, value_name = "OUT.onnx")]
    out: PathBuf,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let what = || format!("cannot make an edge variant of {}", args.onnx.display());
    let backend = args.runtime.open()?;
    let dataset = dataset(&args.calibration)?;
    let mut whole = backend.load(&args.onnx, &SessionOptions::default())?;
    let data = dataset.for_model(whole.inputs())?;
    let items: &Items<'_> = &|item| Ok(data.inputs(item)?);
    // Three of five fit, one chooses, one judges.
    let part =
        |of: &[usize]| (0..dataset.len()).filter(|i| of.contains(&(i % 5))).collect::<Vec<_>>();
    let (fit, choose, judge) = (part(&[0, 1, 2]), part(&[3]), part(&[4]));
    let mut model = Model::read(&args.onnx).with_context(what)?;
    fold(&mut model, &backend).with_context(what)?;
    let options = Options { after: args.after.clone(), target_drop: args.target_drop };
    let split = Split { fit: &fit, choose: &choose };
    let distilled = distill(&model, &options, (items, split), dataset.labels(), &backend);
    let distilled = distilled.with_context(what)?;
    distilled.model.write(&args.out).with_context(what)?;

    let mut edge = backend.load(&args.out, &SessionOptions::default())?;
    let reference = Reference::new(&mut *whole, items, &judge, dataset.labels())?;
    let quality = reference.compare(&mut *edge, items, &judge)?;
    let inputs = data.inputs(0)?;
    let speedup = latency(&mut *whole, &mut *edge, &inputs, Duration::from_secs(2))?.speedup;
    let (before, after) = (args.onnx.metadata()?.len(), args.out.metadata()?.len());
    if args.json {
        output::json(&json!({
            "places": distilled.places, "chosen": distilled.chosen, "whole": reference.own(), "edge": quality,
            "speedup": speedup, "original_bytes": before, "size_bytes": after, "model": args.out,
        }));
        return Ok(());
    }
    show(&distilled);
    output::line(&format!("\nsize    {} of {}", output::size(after), output::size(before)));
    output::line(&format!("speed   {speedup:.2}x"));
    output::line(&format!("unseen  whole {}", figures(&reference.own())));
    output::line(&format!("        edge  {}", figures(&quality)));
    output::line(&format!("model   {}", args.out.display()));
    Ok(())
}

fn show(distilled: &Distilled) {
    let row = |(index, place): (usize, &Place)| {
        vec![
            if index == distilled.chosen { "chosen" } else { "" }.to_owned(),
            place.after.clone(),
            output::percent(Some(place.work)),
            place.features.to_string(),
            output::percent(Some(place.agreement)),
            output::percent(place.accuracy),
        ]
    };
    let rows = distilled.places.iter().enumerate().map(row).collect();
    output::table(&["", "cut after", "work", "features", "agreement", "accuracy"], rows, "");
}
