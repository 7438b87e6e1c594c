//! Both sides' builds of one model, and what each is worth.

use anyhow::{Context, ensure};
use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::anchor::{self, Anchor};
use super::judge::{Judge, Worth};
use super::subjects::Subject;
use crate::python::{self, Environment};
use crate::world::program;

/// Items that the anchor calibrates with; its histograms take memory by the item.
pub(super) const ANCHOR_ITEMS: usize = 48;

/// One model, to be built by both sides.
pub(super) struct Contest<'c> {
    pub(super) subject: &'c Subject,
    pub(super) python: &'c Environment,
    pub(super) backend: &'c OrtBackend,
    /// Where its builds are.
    pub(super) work: &'c Path,
}

/// One build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Build {
    pub(super) what: String,
    pub(super) onnx: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) worth: Worth,
    pub(super) drop: f64,
    /// How long it took: the whole search, or the one configuration.
    pub(super) seconds: f64,
    pub(super) peak_mb: f64,
}

/// All builds of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) float_bytes: u64,
    pub(super) float: Worth,
    pub(super) ours: Build,
    pub(super) anchors: Vec<Build>,
}

impl Found {
    /// The share of lines that the float model reads right and ours does not, less the other way round.
    pub(super) fn lines_lost(&self) -> f64 {
        self.float.lines.unwrap_or(0.0) - self.ours.worth.lines.unwrap_or(0.0)
    }
}

impl Contest<'_> {
    /// Makes and judges all builds.
    pub(super) fn find(&self, short: bool) -> anyhow::Result<Found> {
        let subject = self.subject;
        let calibration = Dataset::open(&subject.calibration)?;
        let evaluation = Dataset::open(&subject.evaluation)?;
        let session = self.backend.load(&subject.onnx, &SessionOptions::default())?;
        let data = calibration.for_model(session.inputs())?;
        drop(session);
        anchor::write_items(self.work, &calibration, &data, ANCHOR_ITEMS)?;
        let judge = Judge::new(subject, &evaluation, self.backend)?;
        let ours = self.compress(&judge)?;
        self.same_in_python(&ours.onnx, &data.inputs(0)?)?;
        let configs = if short { &subject.anchors[..3] } else { subject.anchors };
        let mut anchors = Vec::new();
        for made in self.anchor().make(configs)? {
            let took = (made.took.seconds, made.took.peak_mb);
            // Not everything that it writes can be loaded.
            match self.judged(&judge, (made.name.to_owned(), made.onnx), took) {
                Ok(build) => anchors.push(build),
                Err(error) => eprintln!("  anchor {}: unusable: {error:#}", made.name),
            }
        }
        let float_bytes = subject.onnx.metadata()?.len();
        Ok(Found { float_bytes, float: judge.own(&subject.onnx)?, ours, anchors })
    }

    pub(super) fn anchor(&self) -> Anchor<'_> {
        Anchor { python: self.python, onnx: &self.subject.onnx, folder: self.work }
    }

    /// What `outrigger model compress` makes, and how long it took.
    fn compress(&self, judge: &Judge<'_>) -> anyhow::Result<Build> {
        let out = self.work.join("out");
        let begin = Instant::now();
        let mut command = Command::new(program("outrigger")?);
        command.args(["model", "compress", "--json", "--time-budget", "9m"]);
        command.arg(&self.subject.onnx).arg("--calibration").arg(&self.subject.calibration);
        command.arg("--target-drop").arg(format!("{}%", self.subject.target_drop * 100.0));
        if let Some(blank) = self.subject.blank() {
            command.arg("--blank").arg(blank.to_string());
        }
        let output = command.arg("--out").arg(&out).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "outrigger model compress: {errors}");
        let seconds = begin.elapsed().as_secs_f64();
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let outcome = &report["outcome"];
        let model = PathBuf::from(outcome["model"].as_str().context("no model")?);
        let chosen = outcome["choice"]["reason"].as_str().unwrap_or_default().to_owned();
        let peak_mb = outcome["memory_peak_bytes"].as_f64().unwrap_or(0.0) / 1e6;
        self.judged(judge, (chosen, model), (seconds, peak_mb))
    }

    /// ONNX's checker takes the file, and ONNX Runtime's Python answers the same, bit by bit.
    fn same_in_python(&self, onnx: &Path, inputs: &[Tensor]) -> anyhow::Result<()> {
        let theirs = self.work.join("outputs.bin");
        let mut command = self.python.command("compress_check.py");
        python::output(command.arg(onnx).arg(self.work).arg(&theirs))?;
        let mut session = self.backend.load(onnx, &SessionOptions::default())?;
        let ours: Vec<u8> =
            session.run(inputs, &[])?.iter().flat_map(|t| t.data().to_vec()).collect();
        ensure!(ours == std::fs::read(theirs)?, "{}: other answers in Python", onnx.display());
        Ok(())
    }

    fn judged(
        &self,
        judge: &Judge<'_>,
        (what, onnx): (String, PathBuf),
        (seconds, peak_mb): (f64, f64),
    ) -> anyhow::Result<Build> {
        let worth = judge.judge(&onnx)?;
        let (size_bytes, drop) = (onnx.metadata()?.len(), judge.drop(&worth));
        eprintln!("  {what}: loses {drop:.4}, {size_bytes} bytes, {seconds:.0} s, {peak_mb:.0} MB");
        Ok(Build { what, onnx, size_bytes, worth, drop, seconds, peak_mb })
    }
}
