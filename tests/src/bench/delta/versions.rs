//! The versions that are compared.

use anyhow::Context;
use compress::evaluate::evaluate;
use compress::quantize::{Recipe, Rounding, plan, quantize_refined, refine};
use compress::{calibrate, fold};
use delta::Grain;
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

/// Adam's: one for a model that is nearly there, and one that moves every weight as far as tuning usually does.
const RATES: [&str; 2] = ["3e-5", "1e-4"];

/// How far outputs are apart.
struct Apart {
    mean: f64,
    cosine: f64,
}

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
    SettledQuantized,
    Pruned,
    Packed,
    PrunedPacked,
}

impl Kind {
    /// Those that are to take at most 30 %.
    pub(super) const WITH_GOAL: [(Self, &str); 7] = [
        (Self::Tuned, "fine-tuned, all weights in full precision: largest share"),
        (Self::Settled, "fine-tuned, updates rounded to 4 bits: largest share"),
        (Self::Head, "fine-tuned, last layer: largest share"),
        (Self::TunedQuantized, "fine-tuned and quantized: largest share"),
        (Self::SettledQuantized, "fine-tuned and quantized, in steps of 2: largest share"),
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
            Self::SettledQuantized => "int8 of the fine-tuned, steps of 2",
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

/// A model trained on, and what came of that.
struct Tuned {
    path: PathBuf,
    note: String,
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

    /// What it is trained on.
    fn task(&self, subject: &Subject) -> Option<(&'static str, Vec<String>)> {
        let data = |name: &str| text(&fashion().join("data").join(name));
        match subject.name {
            "fashion-edge" | "fashion-cloud" => {
                let files = ["calibration-images.u8", "calibration-labels.u8"].map(data);
                Some(("images", files.into()))
            }
            "efficientnet-lite0" => Some(("crops", vec![text(&subject.calibration)])),
            "minilm" => {
                let tokenizer = subject.calibration.join("tokenizer.json");
                let lines = self.sources.lines.as_ref()?;
                Some(("lines", vec![text(lines), text(&tokenizer)]))
            }
            _ => None,
        }
    }

    /// All versions of one model.
    pub(super) fn pairs(&self, subject: &Subject, folder: &Path) -> anyhow::Result<Vec<Pair>> {
        let work = folder.join(format!("{}-versions", subject.name));
        std::fs::create_dir_all(&work)?;
        let base = &subject.onnx;
        let first = self.quantize(base, &subject.calibration, &work.join("int8.onnx"))?;
        let anew = self.quantize(base, &subject.evaluation, &work.join("int8-anew.onnx"))?;
        let pruned = work.join("pruned.onnx");
        if !pruned.is_file() {
            self.python.run("delta_versions.py", &["prune", &text(base), &text(&pruned), "0.7"])?;
        }
        let head = self.tune(subject, "head", RATES[0], &work)?;
        let mut versions = vec![(Kind::Head, head.note, Some(base), head.path)];
        for rate in RATES {
            let tuned = self.tune(subject, "tune", rate, &work)?;
            let settled = work.join(format!("settled-{rate}.onnx"));
            let settled = self.settle((subject, base), &tuned.path, Grain::default(), &settled)?;
            let quantized = work.join(format!("int8-tuned-{rate}.onnx"));
            let quantized = self.quantize(&tuned.path, &subject.calibration, &quantized)?;
            let steps = work.join(format!("int8-settled-{rate}.onnx"));
            let grain = Grain { step: 2, ..Grain::default() };
            let steps = self.settle((subject, &first), &quantized, grain, &steps)?;
            versions.extend([
                (Kind::Tuned, tuned.note, Some(base), tuned.path),
                (Kind::Settled, settled.note, Some(base), settled.path),
                (Kind::TunedQuantized, format!("tuned at {rate}"), Some(&first), quantized),
                (
                    Kind::SettledQuantized,
                    format!("tuned at {rate}; {}", steps.note),
                    Some(&first),
                    steps.path,
                ),
            ]);
        }
        versions.extend([
            (Kind::Requantized, String::new(), Some(&first), anew),
            (Kind::Pruned, String::new(), Some(base), pruned.clone()),
            (Kind::Packed, String::new(), None, base.clone()),
            (Kind::PrunedPacked, String::new(), None, pruned),
        ]);
        let pair = |(kind, note, old, new): (Kind, String, Option<&PathBuf>, PathBuf)| Pair {
            model: subject.name.to_owned(),
            kind,
            note,
            old: old.cloned(),
            new,
        };
        Ok(versions.into_iter().map(pair).collect())
    }

    fn tune(
        &self,
        subject: &Subject,
        what: &str,
        rate: &str,
        work: &Path,
    ) -> anyhow::Result<Tuned> {
        let (task, data) = self.task(subject).context("no task")?;
        let path = work.join(format!("{what}-{rate}.onnx"));
        let told = work.join(format!("{what}-{rate}.txt"));
        if !told.is_file() {
            let steps = self.training.steps.to_string();
            let mut arguments =
                vec![what.to_owned(), task.to_owned(), text(&subject.onnx), text(&path)];
            arguments.extend([steps, rate.to_owned()]);
            arguments.extend(data);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            std::fs::write(&told, self.python.run("delta_versions.py", &arguments)?)?;
        }
        let told = std::fs::read_to_string(told)?;
        let mut told = told.split_whitespace();
        let (from, to) = (told.next().unwrap_or("?"), told.next().unwrap_or("?"));
        let moved = told.next().and_then(|moved| moved.parse().ok()).unwrap_or(0.0) * 100.0;
        let steps = self.training.steps;
        let note = format!(
            "{steps} steps of Adam at {rate}: loss {from} to {to}, weights moved by {moved:.2} %"
        );
        Ok(Tuned { path, note })
    }

    /// Rounds the updates of a version, and measures what that costs.
    fn settle(
        &self,
        (subject, base): (&Subject, &Path),
        tuned: &Path,
        grain: Grain,
        out: &Path,
    ) -> anyhow::Result<Tuned> {
        let (old, new) = (std::fs::read(base)?, std::fs::read(tuned)?);
        let (of_old, of_new) = (tensors(&old)?, tensors(&new)?);
        let old = delta::Source { bytes: &old, tensors: &of_old };
        let (bytes, _) = delta::settle(old, delta::Source { bytes: &new, tensors: &of_new }, grain);
        std::fs::write(out, bytes)?;
        let [tuning, rounding] = [base, out].map(|other| self.apart(subject, other, tuned));
        let (tuning, rounding) = (tuning?, rounding?);
        let mut note = format!(
            "rounding moves outputs by {:.2} % of what tuning does, cosine {:.6} (tuning {:.6})",
            100.0 * rounding.mean / tuning.mean.max(f64::MIN_POSITIVE),
            rounding.cosine,
            tuning.cosine,
        );
        let data = Dataset::open(&subject.evaluation)?;
        if data.labels().is_some() {
            let right = |path: &Path| {
                let accuracy = evaluate(path, &data, self.backend)?.accuracy;
                anyhow::Ok(100.0 * accuracy.context("a model that names no classes")?.share)
            };
            let (before, after, settled) = (right(base)?, right(tuned)?, right(out)?);
            note += &format!("; right: {settled:.2} %, unrounded {after:.2}, before {before:.2}");
        }
        Ok(Tuned { path: out.to_owned(), note })
    }

    /// How far the first outputs of two models are from each other, on what judges.
    fn apart(&self, subject: &Subject, a: &Path, b: &Path) -> anyhow::Result<Apart> {
        let data = Dataset::open(&subject.evaluation)?;
        let load = |path: &Path| self.backend.load(path, &SessionOptions::default());
        let (mut a, mut b) = (load(a)?, load(b)?);
        let items = data.for_model(a.inputs())?;
        let name = a.outputs().first().context("no output")?.name.clone();
        let (mut sum, mut count, mut products) = (0.0, 0.0, [0.0; 3]);
        for item in 0..data.len().min(32) {
            let inputs = items.inputs(item)?;
            let [a, b] = [&mut a, &mut b].map(|session| {
                let outputs = session.run(&inputs, std::slice::from_ref(&name))?;
                anyhow::Ok(outputs.first().and_then(Tensor::to_f32).unwrap_or_default())
            });
            for (a, b) in a?.iter().zip(&b?) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                sum += (a - b).abs();
                count += 1.0;
                products = [products[0] + a * b, products[1] + a * a, products[2] + b * b];
            }
        }
        let [both, a, b] = products;
        Ok(Apart { mean: sum / f64::max(count, 1.0), cosine: both / (a * b).sqrt() })
    }

    /// Static int8, with weights rounded by least squares on these data.
    fn quantize(&self, float: &Path, data: &Path, out: &Path) -> anyhow::Result<PathBuf> {
        if out.is_file() {
            return Ok(out.to_owned()); // kept by `--work`
        }
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
