//! The compressor beside onnxruntime.quantization's best configuration, on real models.
//!
//! Of each model, `outrigger model compress` makes what it holds for best, and the anchor makes every configuration that
//! people are told to try; the fastest of those within the same target stands for it. All are judged on data that
//! neither has seen, and timed in turn, on one thread.
//!
//! Searching takes minutes and may run beside other work; timing takes a minute and should not. So what was found can be
//! kept ([`Sources::work`]) and timed again.

use models::ort_backend::{OrtBackend, find_library};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BenchReport, Goal};
use crate::python::Environment;
use contest::{Contest, Found};
use subjects::Amount;
use times::Timed;

mod anchor;
mod contest;
mod judge;
mod rows;
pub(super) mod subjects;
mod times;

const PACKAGES: [&str; 5] =
    ["onnx==1.23.2", "onnxruntime==1.31.1", "numpy", "sympy", "pillow==12.0.0"];

/// Where models and data are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The folder with EfficientNet-Lite, MiniLM and Silero VAD.
    pub models: Option<PathBuf>,
    /// The folder with PP-OCRv4.
    pub ocr: Option<PathBuf>,
    /// The file of rated lines.
    pub lines: Option<PathBuf>,
    /// Only models whose name holds this.
    pub only: Option<String>,
    /// Where data, builds and figures are kept; what is there already is not made again.
    pub work: Option<PathBuf>,
    /// Builds that are there are timed again.
    pub retime: bool,
}

const WHOLE: Amount = Amount { calibration: 512, evaluation: 1000 };
const SHORT: Amount = Amount { calibration: 96, evaluation: 48 };

/// Runs the bench; `None`, with the reason printed, where there is no registry.
///
/// # Errors
/// A program that does not do its part.
pub fn run(sources: &Sources, short: bool) -> anyhow::Result<Option<BenchReport>> {
    let Some(python) = Environment::with(&PACKAGES)? else { return Ok(None) };
    let passing = tempfile::tempdir()?;
    let folder = sources.work.as_deref().unwrap_or(passing.path());
    let backend = OrtBackend::open(&find_library(None)?)?;
    let amount = if short { SHORT } else { WHOLE };
    let mut results = Vec::new();
    for subject in subjects::all(sources, &python, folder, amount)? {
        eprintln!("{} ...", subject.name);
        let work = &folder.join(subject.name);
        fs::create_dir_all(work)?;
        let contest = Contest { subject: &subject, python: &python, backend: &backend, work };
        let found: Found = kept(&work.join("found.json"), false, || contest.find(short))?;
        let again = sources.retime;
        let timed: Timed = kept(&work.join("timed.json"), again, || contest.time(&found))?;
        results.push(Judged { name: subject.name, target: subject.target_drop, found, timed });
    }
    let mut report = BenchReport { name: "compress", rows: Vec::new(), goals: goals(&results) };
    report.rows.extend(results.iter().map(Judged::row));
    report.rows.extend(results.iter().map(Judged::cost));
    Ok(Some(report))
}

/// What a file holds, or else what is made now, and written there.
fn kept<T: Serialize + DeserializeOwned>(
    file: &Path,
    again: bool,
    make: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if file.is_file() && !again {
        return Ok(serde_json::from_slice(&fs::read(file)?)?);
    }
    let made = make()?;
    fs::write(file, serde_json::to_vec_pretty(&made)?)?;
    Ok(made)
}

/// All that is known of one model's builds.
struct Judged {
    name: &'static str,
    target: f64,
    found: Found,
    timed: Timed,
}

fn goals(results: &[Judged]) -> Vec<Goal> {
    let least = results.iter().map(|r| r.timed.beside).fold(f64::INFINITY, f64::min);
    let largest = results.iter().map(Judged::size_ratio).fold(0.0, f64::max);
    let better = results.iter().filter(|r| r.timed.beside >= 1.1 || r.size_ratio() <= 0.9).count();
    let searches = results.iter().map(|r| r.found.ours.seconds);
    let builds = results.iter().filter_map(|r| r.timed.static_seconds);
    let mut goals = vec![
        Goal::at_least("least speed beside the anchor", 0.98, least),
        Goal::at_most("largest size beside the anchor", 1.02, largest),
        Goal::at_least(
            "share of rows 1.1 x as fast or 10 % smaller",
            0.5,
            better as f64 / results.len().max(1) as f64,
        ),
        Goal::at_most("longest search, s", 600.0, searches.fold(0.0, f64::max)),
        Goal::at_most(
            "one static build beside the anchor's time",
            0.5,
            builds.map(|(ours, theirs)| ours / theirs).fold(0.0, f64::max),
        ),
    ];
    let of = |name: &str| results.iter().find(|r| r.name == name);
    if let Some(cnn) = of("efficientnet-lite2") {
        let peak = cnn.found.ours.peak_mb;
        goals.push(Goal::at_most("a CNN of 25 MB: most memory, MB", 400.0, peak));
    }
    if let Some(minilm) = of("minilm") {
        let cosine = minilm.found.ours.worth.quality.cosine;
        goals.push(Goal::at_least("MiniLM: times smaller", 3.5, minilm.shrink()));
        goals.push(Goal::at_least("MiniLM: times as fast", 2.0, minilm.timed.ours));
        goals.push(Goal::at_least("MiniLM: cosine", 0.99, cosine));
    }
    if let Some(ocr) = of("ocr-recogniser") {
        goals.push(Goal::at_least("OCR: times smaller", 2.5, ocr.shrink()));
        goals.push(Goal::at_least("OCR: times as fast", 1.25, ocr.timed.ours));
        let lost = ocr.found.lines_lost() * 100.0;
        goals.push(Goal::at_most("OCR: points of exact lines lost", 1.0, lost));
    }
    goals
}
