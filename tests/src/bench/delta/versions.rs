//! The versions that are compared.

use anyhow::Context;
use compress::quantize::{Recipe, Rounding, plan, quantize_refined, refine};
use compress::{calibrate, fold};
use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::onnx::{Model, places};
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;
use std::path::{Path, PathBuf};

use super::super::compress::Sources;
use super::super::compress::subjects::{self, Amount, Subject};
use crate::python::Environment;
use crate::world::fashion;

/// How far models are trained on.
#[derive(Clone, Copy)]
pub(super) struct Training {
    amount: Amount,
    steps: u32,
    /// Larger models are left out.
    most_bytes: u64,
}

impl Training {
    pub(super) const WHOLE: Self = Self {
        amount: Amount { calibration: 96, evaluation: 96 },
        steps: 60,
        most_bytes: u64::MAX,
    };
    pub(super) const SHORT: Self =
        Self { amount: Amount { calibration: 32, evaluation: 32 }, steps: 20, most_bytes: 6 << 20 };
}

/// What became of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tuned,
    Settled,
    Head,
    Requantized,
    TunedQuantized,
    Pruned,
    Packed,
    PrunedPacked,
}

impl Kind {
    /// Those that are to take at most 30 %.
    pub(super) const WITH_GOAL: [(Self, &str); 6] = [
        (Self::Tuned, "fine-tuned, all weights in full precision: largest share"),
        (Self::Settled, "fine-tuned, updates rounded to 4 bits: largest share"),
        (Self::Head, "fine-tuned, last layer: largest share"),
        (Self::TunedQuantized, "fine-tuned and quantized: largest share"),
        (Self::Requantized, "quantized anew: largest share"),
        (Self::Pruned, "pruned: largest share"),
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tuned => "fine-tuned (float, all weights)",
            Self::Settled => "fine-tuned, updates of 4 bits",
            Self::Head => "fine-tuned (last layer)",
            Self::Requantized => "int8, other calibration data",
            Self::TunedQuantized => "int8 of the fine-tuned",
            Self::Pruned => "70 % of the weights zero",
            Self::Packed => "by itself (no base)",
            Self::PrunedPacked => "70 % zero, by itself",
        }
    }
}

/// A version, and what it is from.
pub(super) struct Pair {
    pub(super) model: String,
    pub(super) kind: Kind,
    pub(super) note: String,
    pub(super) old: Option<PathBuf>,
    pub(super) new: PathBuf,
}

pub(super) struct Maker<'m> {
    pub(super) sources: &'m Sources,
    pub(super) python: &'m Environment,
    pub(super) backend: &'m OrtBackend,
    pub(super) training: Training,
}

/// The tensors of a model's bytes.
pub(super) fn tensors(bytes: &[u8]) -> anyhow::Result<Vec<delta::Tensor>> {
    Ok(places::tensors(&bytes::Bytes::copy_from_slice(bytes))?)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Maker<'_> {
    pub(super) fn subjects(&self, folder: &Path) -> anyhow::Result<Vec<Subject>> {
        let all = subjects::all(self.sources, self.python, folder, self.training.amount)?;
        let has_task = |subject: &Subject| {
            let is_small =
                subject.onnx.metadata().is_ok_and(|found| found.len() <= self.training.most_bytes);
            self.task(subject).is_some() && is_small
        };
        Ok(all.into_iter().filter(has_task).collect())
    }

    /// What it is trained on, with which rate.
    fn task(&self, subject: &Subject) -> Option<(&'static str, &'static str, Vec<String>)> {
        let data = |name: &str| text(&fashion().join("data").join(name));
        match subject.name {
            "fashion-edge" | "fashion-cloud" => {
                let files = ["calibration-images.u8", "calibration-labels.u8"].map(data);
                Some(("images", "3e-5", files.into()))
            }
            "efficientnet-lite0" => Some(("crops", "3e-5", vec![text(&subject.calibration)])),
            "minilm" => {
                let tokenizer = subject.calibration.join("tokenizer.json");
                let lines = self.sources.lines.as_ref()?;
                Some(("lines", "2e-5", vec![text(lines), text(&tokenizer)]))
            }
            _ => None,
        }
    }

    /// All versions of one model.
    pub(super) fn pairs(&self, subject: &Subject, folder: &Path) -> anyhow::Result<Vec<Pair>> {
        let work = folder.join(format!("{}-versions", subject.name));
        std::fs::create_dir_all(&work)?;
        let base = &subject.onnx;
        let (tuned, tuned_note) = self.tune(subject, "tune", &work)?;
        let (head, head_note) = self.tune(subject, "head", &work)?;
        let (settled, settled_note) = self.settle(subject, &tuned, &work)?;
        let pruned = work.join("pruned.onnx");
        self.python.run("delta_versions.py", &["prune", &text(base), &text(&pruned), "0.7"])?;
        let first = self.quantize(base, &subject.calibration, &work.join("int8.onnx"))?;
        let anew = self.quantize(base, &subject.evaluation, &work.join("int8-anew.onnx"))?;
        let of_tuned =
            self.quantize(&tuned, &subject.calibration, &work.join("int8-tuned.onnx"))?;
        let versions = [
            (Kind::Tuned, tuned_note, Some(base), &tuned),
            (Kind::Settled, settled_note, Some(base), &settled),
            (Kind::Head, head_note, Some(base), &head),
            (Kind::TunedQuantized, String::new(), Some(&first), &of_tuned),
            (Kind::Requantized, String::new(), Some(&first), &anew),
            (Kind::Pruned, String::new(), Some(base), &pruned),
            (Kind::Packed, String::new(), None, base),
            (Kind::PrunedPacked, String::new(), None, &pruned),
        ];
        let pair = |(kind, note, old, new): (Kind, String, Option<&PathBuf>, &PathBuf)| Pair {
            model: subject.name.to_owned(),
            kind,
            note,
            old: old.cloned(),
            new: new.clone(),
        };
        Ok(versions.into_iter().map(pair).collect())
    }

    fn tune(
        &self,
        subject: &Subject,
        what: &str,
        work: &Path,
    ) -> anyhow::Result<(PathBuf, String)> {
        let (task, rate, data) = self.task(subject).context("no task")?;
        let out = work.join(format!("{what}.onnx"));
        let steps = self.training.steps.to_string();
        let mut arguments = vec![what.to_owned(), task.to_owned(), text(&subject.onnx), text(&out)];
        arguments.extend([steps.clone(), rate.to_owned()]);
        arguments.extend(data);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let told = self.python.run("delta_versions.py", &arguments)?;
        let mut told = told.split_whitespace();
        let (from, to) = (told.next().unwrap_or("?"), told.next().unwrap_or("?"));
        let moved = told.next().and_then(|moved| moved.parse().ok()).unwrap_or(0.0) * 100.0;
        let note = format!(
            "{steps} steps of Adam at {rate}: loss {from} to {to}, weights moved by {moved:.2} %"
        );
        Ok((out, note))
    }

    fn settle(
        &self,
        subject: &Subject,
        tuned: &Path,
        work: &Path,
    ) -> anyhow::Result<(PathBuf, String)> {
        let (old, new) = (std::fs::read(&subject.onnx)?, std::fs::read(tuned)?);
        let (of_old, of_new) = (tensors(&old)?, tensors(&new)?);
        let old = delta::Source { bytes: &old, tensors: &of_old };
        let (bytes, _) = delta::settle(old, delta::Source { bytes: &new, tensors: &of_new }, 4);
        let out = work.join("settled.onnx");
        std::fs::write(&out, bytes)?;
        let tuning = self.distance(subject, &subject.onnx, tuned)?;
        let rounding = self.distance(subject, &out, tuned)?;
        let note = format!(
            "rounding moves outputs by {:.2} % of what tuning does",
            100.0 * rounding / tuning.max(f64::MIN_POSITIVE)
        );
        Ok((out, note))
    }

    /// The mean distance between the first outputs of two models, on what judges.
    fn distance(&self, subject: &Subject, a: &Path, b: &Path) -> anyhow::Result<f64> {
        let data = Dataset::open(&subject.evaluation)?;
        let load = |path: &Path| self.backend.load(path, &SessionOptions::default());
        let (mut a, mut b) = (load(a)?, load(b)?);
        let items = data.for_model(a.inputs())?;
        let name = a.outputs().first().context("no output")?.name.clone();
        let (mut sum, mut count) = (0.0, 0.0);
        for item in 0..data.len().min(32) {
            let inputs = items.inputs(item)?;
            let [a, b] = [&mut a, &mut b].map(|session| {
                let outputs = session.run(&inputs, std::slice::from_ref(&name))?;
                anyhow::Ok(outputs.first().and_then(Tensor::to_f32).unwrap_or_default())
            });
            for (a, b) in a?.iter().zip(&b?) {
                sum += f64::from((a - b).abs());
                count += 1.0;
            }
        }
        Ok(sum / f64::max(count, 1.0))
    }

    /// Static int8, with weights rounded by least squares on these data.
    fn quantize(&self, float: &Path, data: &Path, out: &Path) -> anyhow::Result<PathBuf> {
        let mut model = Model::read(float)?;
        fold::fold(&mut model, self.backend)?;
        let data = Dataset::open(data)?;
        let session = self.backend.load(float, &SessionOptions::default())?;
        let items = data.for_model(session.inputs())?;
        drop(session);
        let values = plan(&model, &Default::default(), None).measured();
        let inputs = |item| Ok(items.inputs(item)?);
        let chosen: Vec<usize> = (0..data.len().min(48)).collect();
        let seen = calibrate::calibrate(&model, &values, (&inputs, &chosen), self.backend)?;
        let recipe = Recipe { rounding: Rounding::LeastSquares, ..Recipe::default() };
        let refined = refine(&model, &recipe, (&inputs, &chosen), self.backend)?;
        let built = quantize_refined(&model, (&seen, &refined), &recipe)?;
        built.model.write(out)?;
        Ok(out.to_owned())
    }
}
