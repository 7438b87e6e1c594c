//! `outrigger lab measure`.

use anyhow::Context;
use models::backend::{Backend, SessionOptions};
use protocol::measurement::{Measured, Timed};
use protocol::tensor::Tensor;
use serde_json::json;
use std::path::{Path, PathBuf};

use crate::commands::model::dataset;
use crate::config::Config;
use crate::lab::{Lab, Terms};
use crate::output;
use crate::runtime::RuntimeArgs;
use crate::time::parse_span;

/// Arguments of `lab measure`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// ONNX files with the same inputs; the others are compared with the first.
    #[arg(value_name = "MODEL.onnx", required = true, num_args = 1..=protocol::limits::MEASURED_MODELS_MAX)]
    models: Vec<PathBuf>,
    /// A device's name or id.
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Where the inputs come from: a folder with data.toml or model.toml, or such a file; its first item is asked.
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Threads of each model.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// How long the models run, all together.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_span)]
    time: u32,
    /// How long the device is waited for.
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = parse_span)]
    wait: u32,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::open(&Config::open()?)?;
    let device = lab.device(&args.device)?;
    let models: Vec<&Path> = args.models.iter().map(PathBuf::as_path).collect();
    let inputs = inputs(args, models[0])?;
    let terms = Terms { threads: args.threads, time_s: args.time, wait_s: args.wait };
    let measured = lab.measure(&device, &models, &inputs, &terms)?;
    match args.json {
        true => output::json(&json!({ "device": device, "measured": measured })),
        false => show(args, &measured),
    }
    Ok(())
}

fn inputs(args: &Args, model: &Path) -> anyhow::Result<Vec<Tensor>> {
    let backend = args.runtime.open()?;
    let session = backend.load(model, &SessionOptions::default());
    let session = session.with_context(|| format!("cannot load {}", model.display()))?;
    let data = dataset(&args.data)?;
    Ok(data.for_model(session.inputs())?.inputs(0)?)
}

fn show(args: &Args, measured: &Measured) {
    let row = |(path, timed): (&PathBuf, &Timed)| {
        let name = path.display().to_string();
        match timed {
            Timed::Times(times) => vec![
                name,
                format!("{:.2}x", times.speedup),
                format!("{:.0}", times.median_us),
                format!("{:.0}", times.p95_us),
                times.runs.to_string(),
            ],
            Timed::Failed(why) => vec![name, format!("failed: {why}")],
        }
    };
    let rows = args.models.iter().zip(&measured.models).map(row).collect();
    output::table(&["model", "speed", "median us", "p95 us", "runs"], rows, "");
    let machine = &measured.machine;
    output::line(&format!(
        "\non {} ({}), {}",
        machine.processor,
        machine.features.join(" "),
        machine.runtime
    ));
}
