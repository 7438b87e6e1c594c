//! `outrigger model prune`: fewer channels, or zeros among the weights, without training.

use anyhow::Context;
use compress::CompressError;
use compress::fold::fold;
use compress::measure::{Items, Quality, Reference, latency};
use compress::prune::{Importance, Options, PrunedGroup, prune};
use indicatif::{ProgressBar, ProgressStyle};
use models::authoring::dataset::ModelData;
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use models::ort_backend::OrtBackend;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

use super::compress::figures;
use super::dataset;
use crate::output;
use crate::runtime::RuntimeArgs;

mod zeros;

/// The most items that layers are sampled on.
const SAMPLED_MAX: usize = 128;
/// The most items that the result is compared on.
const COMPARED_MAX: usize = 256;

/// Arguments of `model prune`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The float model.
    #[arg(value_name = "IN.onnx")]
    onnx: PathBuf,
    /// The share of all channels that stays.
    #[arg(long, value_name = "SHARE", default_value_t = 0.75)]
    keep: f64,
    /// Take no channels: this share of each layer's weights becomes zero instead, which makes the file shorter when it is
    /// sent compressed, not where it lies.
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["keep", "uniform", "multiple"])]
    unstructured: Option<f64>,
    /// Data to choose channels and to fit the others with: a folder with data.toml or model.toml, or such a file.
    #[arg(long, value_name = "DATA")]
    calibration: PathBuf,
    /// Data for the final figures; a half of the others when absent.
    #[arg(long, value_name = "DATA")]
    eval: Option<PathBuf>,
    /// What decides which channels go: what their readers lose (reconstruction), or the length of their weights
    /// (magnitude).
    #[arg(long, value_name = "NAME", default_value = "reconstruction", value_parser = importance)]
    importance: Importance,
    /// Every layer loses the same share, instead of what it can spare.
    #[arg(long)]
    uniform: bool,
    /// Leave the weights that stay as they are.
    #[arg(long)]
    no_repair: bool,
    /// Counts that stay are multiples of this.
    #[arg(long, value_name = "N", default_value_t = 8)]
    multiple: usize,
    /// The smaller model.
    #[arg(long, short, value_name = "OUT.onnx")]
    out: PathBuf,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn importance(text: &str) -> Result<Importance, String> {
    match text {
        "reconstruction" => Ok(Importance::Reconstruction),
        "magnitude" => Ok(Importance::Magnitude),
        _ => Err("write reconstruction or magnitude".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.keep > 0.0 && args.keep <= 1.0, "--keep is a share above 0, at most 1");
    let sparse = args.unstructured.is_none_or(|share| (0.0..1.0).contains(&share));
    anyhow::ensure!(sparse, "--unstructured is a share from 0 to 1, for example 0.7");
    let what = || format!("cannot prune {}", args.onnx.display());
    let backend = args.runtime.open()?;
    let calibration = dataset(&args.calibration)?;
    let eval = args.eval.as_deref().map(dataset).transpose()?;
    let session = backend.load(&args.onnx, &SessionOptions::default())?;
    let data = calibration.for_model(session.inputs())?;
    drop(session);
    // Every second item is for the figures, unless they have data of their own.
    let step = if eval.is_some() { 1 } else { 2 };
    let sampled: Vec<usize> = (0..calibration.len()).step_by(step).take(SAMPLED_MAX).collect();
    let mut model = Model::read(&args.onnx).with_context(what)?;
    fold(&mut model, &backend).with_context(what)?;
    let items = |item: usize| Ok(data.inputs(item)?);
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let data_of = (&items as &Items<'_>, &sampled[..]);
    let made = match args.unstructured {
        Some(share) => zeros::make(args, share, &model, data_of, &backend, &bar),
        None => channels(args, &model, data_of, &backend, &bar),
    };
    bar.finish_and_clear();
    let made = made.with_context(what)?;
    made.model.write(&args.out).with_context(what)?;
    let judged = match &eval {
        Some(eval) => {
            let data =
                eval.for_model(backend.load(&args.out, &SessionOptions::default())?.inputs())?;
            let items: Vec<usize> = (0..eval.len()).take(COMPARED_MAX).collect();
            judge(args, &backend, (&data, eval.labels()), &items)?
        }
        None => {
            let items: Vec<usize> = (1..calibration.len()).step_by(2).take(COMPARED_MAX).collect();
            judge(args, &backend, (&data, calibration.labels()), &items)?
        }
    };
    report(args, &made, &judged)
}

/// A smaller model, and what is to be said of it.
struct Made {
    model: Model,
    table: Table,
    lines: Vec<String>,
    facts: Value,
}

struct Table {
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

fn channels(
    args: &Args,
    model: &Model,
    data: (&Items<'_>, &[usize]),
    backend: &OrtBackend,
    bar: &ProgressBar,
) -> Result<Made, CompressError> {
    let options = Options {
        keep: args.keep,
        uniform: args.uniform,
        importance: args.importance.clone(),
        repair: !args.no_repair,
        multiple: args.multiple,
    };
    let mut tell = |group: &PrunedGroup| {
        let name = group.made_by.first().map_or("", String::as_str);
        bar.set_message(format!("{} of {} channels of {name}", group.kept, group.channels));
    };
    let pruned = prune(model, &options, data, backend, &mut tell)?;
    let (channels, kept) = pruned.channels();
    let row = |group: &PrunedGroup| {
        vec![
            group.made_by.join(" "),
            format!("{} of {}", group.kept, group.channels),
            group.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}")),
            group.fixed.unwrap_or_default().to_owned(),
        ]
    };
    let rows = pruned.groups.iter().map(row).collect();
    let header = &["made by", "channels", "loss", ""];
    let share = output::percent(Some(kept as f64 / channels.max(1) as f64));
    Ok(Made {
        table: Table { header, rows, empty: "The model has no channels" },
        lines: vec![format!("channels  {kept} of {channels} ({share})")],
        facts: json!({ "groups": pruned.groups, "channels": channels, "kept": kept }),
        model: pruned.model,
    })
}

/// The pruned model beside the one that came.
struct Judged {
    float: Quality,
    pruned: Quality,
    speedup: f64,
}

fn judge(
    args: &Args,
    backend: &OrtBackend,
    (data, labels): (&ModelData<'_>, Option<&[usize]>),
    chosen: &[usize],
) -> anyhow::Result<Judged> {
    let items: &Items<'_> = &|item| Ok(data.inputs(item)?);
    let mut before = backend.load(&args.onnx, &SessionOptions::default())?;
    let mut after = backend.load(&args.out, &SessionOptions::default())?;
    let reference = Reference::new(&mut *before, items, chosen, labels)?;
    let pruned = reference.compare(&mut *after, items, chosen)?;
    let inputs = data.inputs(chosen.first().copied().unwrap_or(0))?;
    let latency = latency(&mut *before, &mut *after, &inputs, Duration::from_secs(2))?;
    Ok(Judged { float: reference.own(), pruned, speedup: latency.speedup })
}

fn report(args: &Args, made: &Made, judged: &Judged) -> anyhow::Result<()> {
    let size = |path: &PathBuf| Ok::<_, anyhow::Error>(path.metadata()?.len());
    let (before, after) = (size(&args.onnx)?, size(&args.out)?);
    if args.json {
        let mut report = json!({
            "float": judged.float, "pruned": judged.pruned, "speedup": judged.speedup, "original_bytes": before,
            "size_bytes": after, "model": args.out,
        });
        let facts = made.facts.as_object().into_iter().flatten();
        facts.for_each(|(name, fact)| report[name] = fact.clone());
        output::json(&report);
        return Ok(());
    }
    output::table(made.table.header, made.table.rows.clone(), made.table.empty);
    output::line("");
    made.lines.iter().for_each(|line| output::line(line));
    output::line(&format!("size      {} of {}", output::size(after), output::size(before)));
    output::line(&format!("speed     {:.2}x", judged.speedup));
    output::line(&format!("unseen    before {}", figures(&judged.float)));
    output::line(&format!("          after  {}", figures(&judged.pruned)));
    output::line(&format!("model     {}", args.out.display()));
    Ok(())
}
