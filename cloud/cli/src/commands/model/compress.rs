//! `outrigger model compress`: makes a model small and fast, and says what that cost.

use compress::measure::Quality;
use compress::report::{FACTS_FILE, PAGE_FILE, page};
use compress::search::{Elsewhere, Goal, Options, Outcome, Search, Trial};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::dataset;
use crate::config::Config;
use crate::errors::{self, hinted};
use crate::lab::{Lab, Terms};
use crate::output;
use crate::runtime::RuntimeArgs;

/// Arguments of `model compress`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The float model.
    #[arg(value_name = "IN.onnx")]
    onnx: PathBuf,
    /// Data to calibrate and to choose with: a folder with data.toml or model.toml, or such a file.
    #[arg(long, value_name = "DATA")]
    calibration: PathBuf,
    /// Data for the final figures, which no choice sees; a third of the others when absent.
    #[arg(long, value_name = "DATA")]
    eval: Option<PathBuf>,
    /// How much may be lost: of the accuracy where the data have labels, of the lines read as the float model reads them
    /// with --blank, else of the cosine to the float outputs.
    #[arg(long, value_name = "PERCENT", default_value = "0.5%", value_parser = percent)]
    target_drop: f64,
    /// The model reads lines, [1, tokens, classes], and this class separates letters (the blank of CTC; often 0).
    #[arg(long, value_name = "CLASS")]
    blank: Option<u32>,
    /// What is wanted most of what meets the target: latency or size.
    #[arg(long = "for", value_name = "GOAL", default_value = "latency", value_parser = goal)]
    goal: Goal,
    /// When no further trial begins, for example 90s or 10m.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    time_budget: Duration,
    /// Which items of the data are for what.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The folder for the model, its report and the journal; the same again goes on where it was.
    #[arg(long, short, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// A device by its name or id, whose times decide which build is best; it must allow that, and an operator
    /// must have let this machine: outrigger lab delegate.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How long all builds run on a device.
const DEVICE_TIME_S: u32 = 20;
/// How long a device is waited for.
const DEVICE_WAIT_S: u32 = 600;

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    let share = number.ok().map(|number| number / 100.0).filter(|s| (0.0..=1.0).contains(s));
    share.ok_or_else(|| "write a percentage from 0% to 100%, for example 0.5%".to_owned())
}

fn goal(text: &str) -> Result<Goal, String> {
    match text.to_lowercase().as_str() {
        "latency" => Ok(Goal::Latency),
        "size" => Ok(Goal::Size),
        _ => Err("write latency or size".to_owned()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("h", 3600), ("m", 60), ("s", 1)];
    let read = |(unit, seconds): (&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(seconds).map(Duration::from_secs)
    };
    units.into_iter().find_map(read).ok_or_else(|| "write for example 90s, 10m or 1h".to_owned())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let backend = args.runtime.open()?;
    let device = args.device.as_deref().map(device).transpose()?;
    let calibration = dataset(&args.calibration)?;
    let eval = args.eval.as_deref().map(dataset).transpose()?;
    let search = Search {
        onnx: &args.onnx,
        calibration: &calibration,
        evaluation: eval.as_ref(),
        out: &args.out,
        backend: &backend,
        elsewhere: device.as_deref(),
    };
    let options = Options {
        target_drop: args.target_drop,
        blank: args.blank,
        goal: args.goal,
        budget: args.time_budget,
        seed: args.seed,
    };
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    bar.set_message("folding and calibrating");
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut told = Vec::new();
    let outcome = search.run(&options, &mut |trial| tell(&bar, &mut told, trial, &options));
    bar.finish_and_clear();
    let outcome = outcome.map_err(|error| {
        let what = format!("cannot compress {}", args.onnx.display());
        with_room(anyhow::Error::from(error).context(what))
    })?;
    let report = json!({ "options": options, "outcome": outcome });
    write(&args.out.join(FACTS_FILE), &format!("{report:#}\n"))?;
    write(&args.out.join(PAGE_FILE), &page(&outcome, &options))?;
    match args.json {
        true => output::json(&report),
        false => show(&outcome),
    }
    Ok(())
}

/// What times builds on a device of the fleet.
fn device(name: &str) -> anyhow::Result<Box<Elsewhere<'static>>> {
    let lab = Lab::open(&Config::open()?)?;
    let device = lab.device(name)?;
    Ok(Box::new(move |files, inputs| {
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let terms = Terms { threads: 1, time_s: DEVICE_TIME_S, wait_s: DEVICE_WAIT_S };
        lab.measure(&device, &files, inputs, &terms).map_err(|error| errors::in_words(&error))
    }))
}

/// Says what helps where there was no space.
fn with_room(error: anyhow::Error) -> anyhow::Error {
    let full = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    match full.into_iter().any(|e| e.kind() == std::io::ErrorKind::StorageFull) {
        true => hinted(
            format!("{error:#}"),
            "make room there, or give another folder (TMPDIR for builds); the same command goes on",
        ),
        false => error,
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)
        .map_err(|e| hinted(format!("cannot write {}: {e}", path.display()), "make room for it"))
}

/// Shows how many trials there were, and the best so far.
fn tell(bar: &ProgressBar, told: &mut Vec<Trial>, trial: &Trial, options: &Options) {
    told.push(trial.clone());
    let good = told.iter().filter(|trial| trial.drop <= options.target_drop);
    let best = match options.goal {
        Goal::Latency => good.max_by(|a, b| a.latency.speedup.total_cmp(&b.latency.speedup)),
        Goal::Size => good.min_by_key(|trial| trial.size_bytes),
    };
    let best = best.map_or_else(
        || "nothing meets the target yet".to_owned(),
        |t| format!("best so far {:.2}x, {}", t.latency.speedup, output::size(t.size_bytes)),
    );
    bar.set_message(format!("{} trials; {best}", told.len()));
}

fn show(outcome: &Outcome) {
    let mark = |index: usize| match outcome.choice.trial {
        Some(chosen) if chosen == index => "chosen",
        _ if outcome.front.contains(&index) => "front",
        _ => "",
    };
    let row = |(index, trial): (usize, &Trial)| {
        let (fused, wanted) = trial.fused.total();
        vec![
            mark(index).to_owned(),
            trial.recipe.describe(),
            output::size(trial.size_bytes),
            format!("{:.2}x", trial.decisive().speedup),
            format!("{:.0}", trial.decisive().own_us),
            format!("{fused}/{wanted}"),
            format!("{:.4}", trial.quality.cosine),
            output::percent(trial.quality.agreement.or(trial.quality.lines)),
            output::percent(trial.quality.accuracy),
        ]
    };
    let header = ["", "build", "size", "speed", "us", "fused", "cosine", "agreement", "accuracy"];
    let rows = outcome.trials.iter().enumerate().map(row).collect();
    output::table(&header, rows, "There was no time for a trial: give more with --time-budget");
    let folded = outcome.folded;
    output::line(&format!(
        "\nfloat   {}, folded {} ({} constants, {} normalizations, {} paddings)",
        output::size(outcome.original.size_bytes),
        output::size(outcome.folded_bytes),
        folded.constants,
        folded.normalizations,
        folded.paddings,
    ));
    output::line(&format!("choice  {}", outcome.choice.reason));
    let evaluation = &outcome.evaluation;
    output::line(&format!(
        "unseen  float {}, chosen {}",
        figures(&evaluation.float),
        figures(&evaluation.chosen)
    ));
    output::line(&format!("model   {}", outcome.model.display()));
    output::line(&format!("report  {}", outcome.model.with_file_name(PAGE_FILE).display()));
    if outcome.out_of_time {
        eprintln!(
            "the time was over before all trials were made; the same command with more goes on"
        );
    }
}

pub(super) fn figures(quality: &Quality) -> String {
    let mut words = vec![format!("cosine {:.4}", quality.cosine)];
    let shares = [
        ("agreement", quality.agreement),
        ("accuracy", quality.accuracy),
        ("same lines", quality.lines),
    ];
    let known = shares.iter().filter(|(_, share)| share.is_some());
    words.extend(known.map(|(name, share)| format!("{name} {}", output::percent(*share))));
    if let Some(margin) = quality.margin {
        words.push(format!("+-{:.2} points", margin * 100.0));
    }
    format!("({} items: {})", quality.items, words.join(", "))
}
