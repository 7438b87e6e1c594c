//! Finds the best build of a model by building, reading back and measuring.
//!
//! The trials follow from what was measured before: every scheme and every method of calibration; the best of them with
//! weights rounded otherwise and channels evened out; then with its most sensitive layers back in float until the target is
//! met. Each trial is one line of the
//! [`journal`](mod@journal), durable before the next begins; a search that is started again with the same model, data
//! and options reads it and goes on.
//!
//! Three disjoint parts of the data are used: one for ranges, one for choosing, one for the final figures, which no
//! choice has seen.

use std::cmp::Ordering;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::machine;
use models::onnx::Model;
use models::onnx::proto::NodeProto;
use models::ort_backend::OrtBackend;
use protocol::id::{ContentHash, Hasher};
use protocol::measurement::Machine;
use serde::{Deserialize, Serialize};

use crate::error::{CompressError, io_error};
use crate::evaluate::{Accuracy, by_class};
use crate::fold::{self, Folded};
use crate::measure::{Latency, Quality, Reference};
use crate::quantize::Recipe;

mod choice;
mod elsewhere;
pub mod journal;
mod material;
mod parts;
mod trials;

pub use choice::{Choice, front};
pub use elsewhere::Elsewhere;
use journal::{Heading, Journal};
use parts::Parts;
use trials::Bench;

/// What is optimised among the builds that meet the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// The fastest.
    Latency,
    /// The smallest.
    Size,
}

/// What a search may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How much may be lost: of the accuracy where labels are known, of the lines that are read the same where there is a
    /// blank, else of the cosine to the float outputs.
    pub target_drop: f64,
    /// The class that separates the letters of a recogniser.
    #[serde(default)]
    pub blank: Option<u32>,
    /// What is optimised.
    pub goal: Goal,
    /// When no further trial begins.
    pub budget: Duration,
    /// Which items are in which part of the data.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        let budget = Duration::from_secs(600);
        Self { target_drop: 0.005, blank: None, goal: Goal::Latency, budget, seed: 0 }
    }
}

/// One build that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// How it was built.
    pub recipe: Recipe,
    /// Its length.
    pub size_bytes: u64,
    /// How near it is to the float model, on the items for choosing.
    pub quality: Quality,
    /// What was lost, on the same items.
    pub drop: f64,
    /// How fast it is here.
    pub latency: Latency,
    /// How fast it is on the device where the search had it timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Latency>,
    /// What ONNX Runtime fused.
    pub fused: crate::fused::Fused,
    /// How long the trial took.
    pub seconds: f64,
}

impl Trial {
    /// The times that decide: of the device, where it was timed there.
    pub fn decisive(&self) -> &Latency {
        self.elsewhere.as_ref().unwrap_or(&self.latency)
    }

    /// Which of two loses less; where as many answers are right, the nearer numbers.
    fn loses(&self, other: &Self) -> Ordering {
        let nearer = || self.quality.distance().total_cmp(&other.quality.distance());
        self.drop.total_cmp(&other.drop).then_with(nearer)
    }
}

/// What a search found.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The model as it came.
    pub original: File,
    /// The chosen model.
    pub compressed: File,
    /// Length after folding alone.
    pub folded_bytes: u64,
    /// What folding removed.
    pub folded: Folded,
    /// By how much folding moved the outputs, as a share of their range.
    pub folding_difference: f64,
    /// The float model on the items for choosing.
    pub float: Quality,
    /// All trials, in order.
    pub trials: Vec<Trial>,
    /// The trials that no other beats in size, speed and quality at once.
    pub front: Vec<usize>,
    /// Which was chosen, and why.
    pub choice: Choice,
    /// Float and chosen model on items that took part in no choice.
    pub evaluation: Evaluation,
    /// Whether the time was over before the trials were.
    pub out_of_time: bool,
    /// The most memory that the process had at once, where the system says it.
    pub memory_peak_bytes: Option<u64>,
    /// Nodes of the chosen model that could not become integers.
    pub in_float: Vec<InFloat>,
    /// How the layers rank by what they suffer, where that was asked.
    pub rankings: Vec<Ranked>,
    /// On what all of this was measured.
    pub machine: Machine,
    /// On what the speeds were measured that decided, where that is another machine.
    pub elsewhere: Option<Machine>,
    /// The chosen model.
    pub model: PathBuf,
}

/// A model's file.
#[derive(Debug, Clone, Serialize)]
pub struct File {
    /// Its name, without folders.
    pub file: String,
    /// Its length.
    pub size_bytes: u64,
    /// The hash of its bytes.
    pub sha256: String,
}

impl File {
    fn of(path: &Path) -> Result<Self, CompressError> {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file, size_bytes: length(path)?, sha256: hash(path)?.to_string() })
    }
}

/// A node that could not become integers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InFloat {
    /// Its first output.
    pub output: String,
    /// Its operator, with the domain where that is not the standard's.
    pub operator: String,
    /// Why.
    pub reason: &'static str,
}

impl InFloat {
    fn of(float: &Model, (output, reason): (String, &'static str)) -> Self {
        let node = float.graph().maker(&output).map(|id| float.graph().node(id));
        let name = |node: &NodeProto| match node.domain() {
            "" | "ai.onnx" => node.op_type().to_owned(),
            domain => format!("{domain}.{}", node.op_type()),
        };
        Self { operator: node.map(name).unwrap_or_default(), output, reason }
    }
}

/// Layers by what they suffer.
#[derive(Debug, Clone, Serialize)]
pub struct Ranked {
    /// The build that they were ranked for.
    pub build: String,
    /// Worst first, with the distance of the answers.
    pub layers: crate::sensitivity::Ranking,
}

/// The final figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The float model.
    pub float: Quality,
    /// The chosen one.
    pub chosen: Quality,
    /// What was lost.
    pub drop: f64,
    /// Each class, where the data have labels.
    pub classes: Vec<ClassFigures>,
}

/// The accuracy of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    /// Its number.
    pub class: usize,
    /// Of the float model.
    pub float: Accuracy,
    /// Of the chosen one.
    pub chosen: Accuracy,
}

/// What is to be compressed, and where everything is.
pub struct Search<'s> {
    /// The float model.
    pub onnx: &'s Path,
    /// Data to calibrate and to choose with.
    pub calibration: &'s Dataset,
    /// Data for the final figures; a part of the others when absent.
    pub evaluation: Option<&'s Dataset>,
    /// The folder for the model, the report and the journal.
    pub out: &'s Path,
    /// ONNX Runtime.
    pub backend: &'s OrtBackend,
    /// The device whose times decide, where it is not this machine.
    pub elsewhere: Option<&'s Elsewhere<'s>>,
}

/// The chosen model's name in the output folder.
pub const MODEL_FILE: &str = "model.onnx";
/// The journal's name in the output folder.
pub const JOURNAL_FILE: &str = "journal.jsonl";

impl Search<'_> {
    /// Searches. `progress` hears of every trial, also of those that the journal knew.
    ///
    /// # Errors
    /// [`CompressError`].
    pub fn run(
        &self,
        options: &Options,
        progress: &mut dyn FnMut(&Trial),
    ) -> Result<Outcome, CompressError> {
        let original = Model::read(self.onnx)?;
        crate::quantize::weights::check(original.graph())?;
        let session = self.backend.load(self.onnx, &SessionOptions::default())?;
        let specs = session.inputs().to_vec();
        drop(session);
        let data = self.calibration.for_model(&specs)?;
        let parts = Parts::cut(self.calibration.len(), self.evaluation.is_some(), options.seed)?;
        std::fs::create_dir_all(self.out).map_err(io_error(self.out))?;
        let heading = Heading::new(&hash(self.onnx)?, self.calibration, &data, options)?;
        let mut journal = Journal::open(&self.out.join(JOURNAL_FILE), &heading)?;

        let mut float = original.clone();
        let folded = fold::fold(&mut float, self.backend)?;
        float.raise_to_13()?;
        let folding_difference = fold::verify(&original, &float, &data.inputs(0)?, self.backend)?;
        drop(original);
        let begin = Instant::now();
        let items = |item: usize| Ok(data.inputs(item)?);
        let known = (self.calibration.labels(), options.blank);
        let mut bench = Bench::new(&float, (&items, known), &parts, self.backend)?;
        let out_of_time = trials::run(&mut bench, options, begin, &mut journal, progress)?;

        let ask = self.elsewhere.map(|ask| elsewhere::time(&mut bench, options, ask));
        let elsewhere = ask.transpose()?.flatten();
        let choice = choice::choose(&bench.trials, options, float.size_bytes());
        let (chosen, in_float) = match choice.trial {
            Some(trial) => {
                let recipe = bench.trials[trial].recipe.clone();
                let built = bench.build(&recipe)?;
                (built.model, built.left)
            }
            None => (float.clone(), Vec::new()),
        };
        let evaluation = self.evaluate(&float, &chosen, (&parts, options.blank))?;
        let path = self.out.join(MODEL_FILE);
        chosen.write(&path)?;
        Ok(Outcome {
            original: File::of(self.onnx)?,
            compressed: File::of(&path)?,
            in_float: in_float.into_iter().map(|left| InFloat::of(&float, left)).collect(),
            rankings: journal.rankings(),
            machine: machine::own(&self.backend.identity(), 1),
            elsewhere,
            folded_bytes: float.size_bytes(),
            folded,
            folding_difference,
            float: bench.float_quality(),
            front: front(&bench.trials),
            trials: bench.trials,
            choice,
            evaluation,
            out_of_time,
            memory_peak_bytes: memory_peak_bytes(),
            model: path,
        })
    }

    /// The final figures, on items that took part in no choice.
    fn evaluate(
        &self,
        float: &Model,
        chosen: &Model,
        (parts, blank): (&Parts, Option<u32>),
    ) -> Result<Evaluation, CompressError> {
        let scratch = crate::scratch::Scratch::new()?;
        let mut session = scratch.load(float, self.backend)?;
        let dataset = self.evaluation.unwrap_or(self.calibration);
        let all: Vec<usize> = (0..dataset.len()).collect();
        let items = if self.evaluation.is_some() { &all } else { &parts.evaluation };
        let data = dataset.for_model(session.inputs())?;
        let get = |item: usize| Ok(data.inputs(item)?);
        let labels = dataset.labels();
        let reference = Reference::reading(&mut *session, &get, items, (labels, blank))?;
        drop(session);
        let mut session = scratch.load(chosen, self.backend)?;
        let (quality, answers) = reference.compare_answers(&mut *session, &get, items)?;
        let own = reference.own();
        let classes = classes(&reference, &answers);
        Ok(Evaluation { drop: quality.drop_from(&own), float: own, chosen: quality, classes })
    }
}

fn classes(reference: &Reference, answers: &[Option<usize>]) -> Vec<ClassFigures> {
    let Some(labels) = reference.labels().filter(|_| answers.iter().all(Option::is_some)) else {
        return Vec::new();
    };
    let pairs = by_class(&reference.classes(), labels).into_iter().zip(by_class(answers, labels));
    pairs.map(|((class, float), (_, chosen))| ClassFigures { class, float, chosen }).collect()
}

/// What Linux says of this process; other systems are not asked.
fn memory_peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn length(path: &Path) -> Result<u64, CompressError> {
    Ok(path.metadata().map_err(io_error(path))?.len())
}

fn hash(path: &Path) -> Result<ContentHash, CompressError> {
    let mut hasher = Hasher::default();
    let mut file = std::fs::File::open(path).map_err(io_error(path))?;
    let mut some = vec![0; 1 << 16];
    loop {
        match file.read(&mut some).map_err(io_error(path))? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&some[..count]),
        }
    }
}
