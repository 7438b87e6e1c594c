//! The compressor beside onnxruntime.quantization's best configuration, on real models.
//!
//! Of each model, `outrigger model compress` makes what it holds for best, and the anchor makes every configuration that
//! people are told to try; the fastest of those within the same target stands for it. All are judged on data that
//! neither has seen, and timed in turn, on one thread.

use anyhow::{Context, ensure};
use compress::measure::latency;
use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{BenchReport, Goal, Row, rounded};
use crate::python::Environment;
use crate::world::program;
use anchor::{Anchor, Made};
use judge::{Judge, Worth};
use subjects::{Amount, Subject};

mod anchor;
mod judge;
pub(super) mod subjects;

const PACKAGES: [&str; 5] =
    ["onnx==1.23.2", "onnxruntime==1.31.1", "numpy", "sympy", "pillow==12.0.0"];
/// Items that the anchor calibrates with; its histograms take memory by the item.
const ANCHOR_ITEMS: usize = 48;

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
}

const WHOLE: Amount = Amount { calibration: 512, evaluation: 1000 };
const SHORT: Amount = Amount { calibration: 96, evaluation: 48 };

/// Runs the bench; `None`, with the reason printed, where there is no registry.
///
/// # Errors
/// A program that does not do its part.
pub fn run(sources: &Sources, short: bool) -> anyhow::Result<Option<BenchReport>> {
    let Some(python) = Environment::with(&PACKAGES)? else { return Ok(None) };
    let folder = tempfile::tempdir()?;
    let backend = OrtBackend::open(&find_library(None)?)?;
    let amount = if short { SHORT } else { WHOLE };
    let mut report = BenchReport { name: "compress", rows: Vec::new(), goals: Vec::new() };
    let mut results = Vec::new();
    for subject in subjects::all(sources, &python, folder.path(), amount)? {
        eprintln!("{} ...", subject.name);
        let work = folder.path().join(subject.name);
        std::fs::create_dir_all(&work)?;
        let result = Contest { subject: &subject, python: &python, backend: &backend, work: &work };
        let result = result.run(short)?;
        result.ours.tell();
        results.push(result);
    }
    report.rows.extend(results.iter().map(Judged::row));
    report.rows.extend(results.iter().map(Judged::cost));
    report.goals = goals(&results);
    Ok(Some(report))
}

struct Contest<'c> {
    subject: &'c Subject,
    python: &'c Environment,
    backend: &'c OrtBackend,
    work: &'c Path,
}

/// One side's best build.
struct Side {
    what: String,
    size_bytes: u64,
    worth: Worth,
    drop: f64,
    /// Times as fast as the float model.
    speedup: f64,
    seconds: f64,
    peak_mb: f64,
}

impl Side {
    fn tell(&self) {
        eprintln!(
            "  {}: loses {:.4}, {:.2}x, {} bytes, {:.0} s",
            self.what, self.drop, self.speedup, self.size_bytes, self.seconds
        );
    }
}

struct Judged {
    name: &'static str,
    float_bytes: u64,
    float_us: f64,
    float: Worth,
    ours: Side,
    anchor: Option<Side>,
    /// Times as fast as the anchor's best.
    beside: f64,
    /// How long one static build takes, beside the anchor's.
    static_seconds: Option<(f64, f64)>,
}

impl Contest<'_> {
    fn run(&self, short: bool) -> anyhow::Result<Judged> {
        let subject = self.subject;
        let calibration = Dataset::open(&subject.calibration)?;
        let evaluation = Dataset::open(&subject.evaluation)?;
        let session = self.backend.load(&subject.onnx, &SessionOptions::default())?;
        let data = calibration.for_model(session.inputs())?;
        drop(session);
        anchor::write_items(self.work, &calibration, &data, ANCHOR_ITEMS)?;
        let made = Anchor { python: self.python, onnx: &subject.onnx, folder: self.work };
        let made = made.make(if short { &subject.anchors[..3] } else { subject.anchors })?;
        let judge = Judge::new(subject, &evaluation, self.backend)?;
        let (outcome, seconds) = self.compress()?;
        let model = PathBuf::from(outcome["model"].as_str().context("no model")?);
        let chosen = outcome["choice"]["reason"].as_str().unwrap_or_default().to_owned();
        let peak_mb = outcome["memory_peak_bytes"].as_f64().unwrap_or(0.0) / 1e6;
        let ours = self.side(&judge, (chosen, &model), (seconds, peak_mb))?;
        let anchor = self.best(&judge, &made)?;
        let beside = match &anchor {
            Some((_, onnx)) => self.times(&judge, onnx, &model)?,
            None => self.times(&judge, &subject.onnx, &model)?,
        };
        let first = made.iter().find(|made| made.name == "min-max").map(|made| made.took.seconds);
        let own = self.one_static(&calibration)?;
        Ok(Judged {
            name: subject.name,
            float_bytes: subject.onnx.metadata()?.len(),
            float_us: outcome["trials"][0]["latency"]["float_us"].as_f64().unwrap_or(0.0),
            float: judge.own(&subject.onnx)?,
            ours,
            anchor: anchor.map(|(side, _)| side),
            beside,
            static_seconds: first.map(|theirs| (own, theirs)),
        })
    }

    /// What `outrigger model compress` reports, and how long it took.
    fn compress(&self) -> anyhow::Result<(Value, f64)> {
        let out = self.work.join("out");
        let begin = Instant::now();
        let mut command = Command::new(program("outrigger")?);
        command.args(["model", "compress", "--json", "--time-budget", "10m"]);
        command.arg(&self.subject.onnx).arg("--calibration").arg(&self.subject.calibration);
        command.arg("--target-drop").arg(format!("{}%", self.subject.target_drop * 100.0));
        let output = command.arg("--out").arg(&out).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "outrigger model compress: {errors}");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        Ok((report["outcome"].clone(), begin.elapsed().as_secs_f64()))
    }

    fn side(
        &self,
        judge: &Judge<'_>,
        (what, onnx): (String, &Path),
        (seconds, peak_mb): (f64, f64),
    ) -> anyhow::Result<Side> {
        let worth = judge.judge(onnx)?;
        let speedup = self.times(judge, &self.subject.onnx, onnx)?;
        let (size_bytes, drop) = (onnx.metadata()?.len(), judge.drop(&worth));
        Ok(Side { what, size_bytes, worth, drop, speedup, seconds, peak_mb })
    }

    /// How many times as fast the second is as the first.
    fn times(&self, judge: &Judge<'_>, first: &Path, second: &Path) -> anyhow::Result<f64> {
        let (mut a, mut b) = (judge.load(first)?, judge.load(second)?);
        Ok(latency(&mut *a, &mut *b, &judge.timed()?, Duration::from_secs(4))?.speedup)
    }

    /// The fastest within the target; float where it is faster than all of them, and where none is within.
    fn best(&self, judge: &Judge<'_>, made: &[Made]) -> anyhow::Result<Option<(Side, PathBuf)>> {
        let mut best: Option<(Side, PathBuf)> = None;
        for made in made {
            let took = (made.took.seconds, made.took.peak_mb);
            // Not everything that it writes can be loaded.
            let side = match self.side(judge, (made.name.to_owned(), &made.onnx), took) {
                Ok(side) => side,
                Err(error) => {
                    eprintln!("  anchor {}: unusable: {error:#}", made.name);
                    continue;
                }
            };
            side.tell();
            let good = side.drop <= self.subject.target_drop && side.speedup > 1.0;
            if good && best.as_ref().is_none_or(|(b, _)| side.speedup > b.speedup) {
                best = Some((side, made.onnx.clone()));
            }
        }
        Ok(best)
    }

    /// Seconds for one static build by min-max with the anchor's items.
    fn one_static(&self, calibration: &Dataset) -> anyhow::Result<f64> {
        use compress::{calibrate, fold, quantize};
        let begin = Instant::now();
        let mut model = models::onnx::Model::read(&self.subject.onnx)?;
        fold::fold(&mut model, self.backend)?;
        let session = self.backend.load(&self.subject.onnx, &SessionOptions::default())?;
        let data = calibration.for_model(session.inputs())?;
        let values = quantize::plan(&model, &Default::default(), None).measured();
        let items = (0..ANCHOR_ITEMS.min(calibration.len())).map(|item| Ok(data.inputs(item)?));
        let seen = calibrate::calibrate(&model, &values, items, self.backend)?;
        let built = quantize::quantize(&model, &seen, &quantize::Recipe::default())?;
        built.model.write(&self.work.join("static.onnx"))?;
        Ok(begin.elapsed().as_secs_f64())
    }
}

impl Judged {
    fn size_ratio(&self) -> f64 {
        let theirs = self.anchor.as_ref().map_or(self.float_bytes, |anchor| anchor.size_bytes);
        self.ours.size_bytes as f64 / theirs.max(1) as f64
    }

    fn row(&self) -> Row {
        let quality = |side: Option<&Side>| {
            let Some(side) = side else { return json!("-") };
            let q = &side.worth.quality;
            let share = |name, value: Option<f64>| value.map(|v| format!(" {name} {v:.3}"));
            json!(format!(
                "cos {:.4}{}{}{}",
                q.cosine,
                share("agree", q.agreement).unwrap_or_default(),
                share("acc", q.accuracy).unwrap_or_default(),
                share("lines", side.worth.lines).unwrap_or_default()
            ))
        };
        let anchor = self.anchor.as_ref();
        Row(vec![
            ("model", json!(self.name)),
            (
                "float",
                json!(format!(
                    "{:.2} ms, {:.1} MB",
                    self.float_us / 1e3,
                    self.float_bytes as f64 / 1e6
                )),
            ),
            ("ours x float", json!(rounded(self.ours.speedup))),
            ("MB", json!(rounded(self.ours.size_bytes as f64 / 1e6))),
            ("quality", quality(Some(&self.ours))),
            ("anchor's best", json!(anchor.map_or("float", |a| &a.what))),
            ("x float", json!(anchor.map_or(1.0, |a| rounded(a.speedup)))),
            (
                "anchor MB",
                json!(rounded(anchor.map_or(self.float_bytes, |a| a.size_bytes) as f64 / 1e6)),
            ),
            ("its quality", quality(anchor)),
            ("speed ratio", json!(rounded(self.beside))),
            ("size ratio", json!(rounded(self.size_ratio()))),
        ])
    }

    fn cost(&self) -> Row {
        let (own, theirs) = self.static_seconds.unwrap_or_default();
        let anchor = self.anchor.as_ref();
        Row(vec![
            ("model", json!(self.name)),
            ("chosen", json!(self.ours.what)),
            ("search s", json!(self.ours.seconds.round())),
            ("peak MB", json!(self.ours.peak_mb.round())),
            ("anchor peak MB", json!(anchor.map_or(0.0, |a| a.peak_mb.round()))),
            ("one static build s", json!(rounded(own))),
            ("anchor's s", json!(rounded(theirs))),
            ("lines float", json!(self.float.lines.map(rounded))),
        ])
    }
}

fn goals(results: &[Judged]) -> Vec<Goal> {
    let least = results.iter().map(|r| r.beside).fold(f64::INFINITY, f64::min);
    let largest = results.iter().map(Judged::size_ratio).fold(0.0, f64::max);
    let better = results.iter().filter(|r| r.beside >= 1.1 || r.size_ratio() <= 0.9).count();
    let mut goals = vec![
        Goal::at_least("least speed beside the anchor", 0.98, least),
        Goal::at_most("largest size beside the anchor", 1.02, largest),
        Goal::at_least(
            "share of rows 1.1 x as fast or 10 % smaller",
            0.5,
            better as f64 / results.len().max(1) as f64,
        ),
        Goal::at_most(
            "longest search, s",
            600.0,
            results.iter().map(|r| r.ours.seconds).fold(0.0, f64::max),
        ),
        Goal::at_most(
            "one static build beside the anchor's time",
            0.5,
            results.iter().filter_map(|r| r.static_seconds).map(|(a, b)| a / b).fold(0.0, f64::max),
        ),
    ];
    if let Some(cnn) = results.iter().find(|r| r.name == "efficientnet-lite2") {
        goals.push(Goal::at_most("a CNN of 25 MB: most memory, MB", 400.0, cnn.ours.peak_mb));
    }
    let shrink = |r: &Judged| r.float_bytes as f64 / r.ours.size_bytes.max(1) as f64;
    if let Some(minilm) = results.iter().find(|r| r.name == "minilm") {
        goals.push(Goal::at_least("MiniLM: times smaller", 3.5, shrink(minilm)));
        goals.push(Goal::at_least("MiniLM: times as fast", 2.0, minilm.ours.speedup));
        goals.push(Goal::at_least("MiniLM: cosine", 0.99, minilm.ours.worth.quality.cosine));
    }
    if let Some(ocr) = results.iter().find(|r| r.name == "ocr-recogniser") {
        let lost = ocr.float.lines.unwrap_or(0.0) - ocr.ours.worth.lines.unwrap_or(0.0);
        goals.push(Goal::at_least("OCR: times smaller", 2.5, shrink(ocr)));
        goals.push(Goal::at_least("OCR: times as fast", 1.25, ocr.ours.speedup));
        goals.push(Goal::at_most("OCR: points of exact lines lost", 1.0, lost * 100.0));
    }
    goals
}
