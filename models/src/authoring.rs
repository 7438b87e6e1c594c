//! Makes bundles from an authoring folder: `model.toml` ([`recipe`]) beside ONNX files, labels,
//! tokenizers and data.
//!
//! Building copies and hashes the files, reads what the model takes and gives from a real session,
//! measures the probes with it, and for the edge variant chooses the threshold, unless `outrigger model
//! calibrate` has left one beside `model.toml`. The result is a manifest for the operator to sign.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use protocol::id::{ModelName, Variant, Version};
use protocol::manifest::{
    Classes, FORMAT, FileRef, InvalidManifest, LABEL_OUTPUT, MODEL_FILE, Manifest,
    PROBABILITY_OUTPUT, Probes, TensorSpec,
};
use protocol::wire::{Probe, ProbeSet};

use crate::backend::{Backend, LoadError, SessionOptions};
use crate::bundle::{BundleError, file_ref, read_labels, read_step_file};
use crate::calibrate::CalibrateError;
use crate::calibrate::empirical::NoThreshold;
use crate::error::RunError;
use crate::preprocess::StepFiles;
use crate::runner::{Call, InvalidPipelines, Pipelines, Reply, Runner};

mod calibration;
mod data;
pub mod dataset;
pub mod recipe;
mod steps;
mod thrift;

pub use calibration::CALIBRATION_FILE;
use data::Batch;
use recipe::{Recipe, Source};
use steps::StepFile;
pub use thrift::ThriftError;

/// The file that describes an authoring folder.
pub const RECIPE_FILE: &str = "model.toml";
/// How many probes a bundle gets, if there are as many items.
pub const PROBES: usize = 64;
const LABELS_FILE: &str = "labels.json";
const PROBES_FILE: &str = "probes.pb";
/// What `outrigger model compress` says of its work.
const REPORT_FILES: [&str; 2] = ["report.json", "report.html"];

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system failed to read or write.
    #[error("cannot access {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A `model.toml` that says something unknown or too little.
    #[error("{path}: {message}")]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Where and what is wrong.
        message: String,
    },
    /// The recipe has no such variant.
    #[error("the recipe has no {0} variant; add [variants.{0}] with its ONNX file")]
    NoVariant(Variant),
    /// The folder for the bundle already holds something.
    #[error("{0} is not empty; give a new folder for the bundle")]
    NotEmpty(PathBuf),
    /// Data that are not what the recipe says.
    #[error("the data {file:?}: {reason}")]
    Data {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The backend refused the ONNX file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A pipeline that cannot run.
    #[error(transparent)]
    Pipeline(#[from] InvalidPipelines),
    /// Labels, or a file of a step, that cannot be used.
    #[error(transparent)]
    Labels(#[from] BundleError),
    /// The model failed on an item of the data.
    #[error("item {item} of the data: {source}")]
    Run {
        /// Which item, from 0.
        item: usize,
        /// How.
        #[source]
        source: RunError,
    },
    /// A threshold needs the logits of `[classes]`.
    #[error("[calibration] needs [classes], to read a confidence from")]
    NoClasses,
    /// Labels are classes, which what a recogniser spells is not.
    #[error("a recogniser is calibrated by what the cloud spells; leave the labels out")]
    LabelledSequences,
    /// Two goals.
    #[error("[calibration] wants max_drop and risk; leave one out")]
    TwoGoals,
    /// A calibration of other ONNX files.
    #[error("{0} was made for other ONNX files; calibrate again, or remove it")]
    OtherModels(PathBuf),
    /// A calibration that cannot be read.
    #[error("{path} is no calibration: {reason}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No threshold can be chosen.
    #[error(transparent)]
    Threshold(#[from] NoThreshold),
    /// No threshold with a bound can be chosen.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Inputs that must not travel packed.
    #[error(transparent)]
    Thrift(#[from] ThriftError),
    /// The parts contradict each other.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
}

/// An authoring folder.
#[derive(Debug, Clone)]
pub struct Author {
    folder: PathBuf,
    recipe: Recipe,
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path, source }
}

impl Author {
    /// Reads the folder's `model.toml`.
    ///
    /// # Errors
    /// [`BuildError::Io`] or [`BuildError::Recipe`].
    pub fn open(folder: &Path) -> Result<Self, BuildError> {
        let path = folder.join(RECIPE_FILE);
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        let recipe = toml::from_str(&text)
            .map_err(|e| BuildError::Recipe { path, message: e.to_string() })?;
        Ok(Self { folder: folder.to_owned(), recipe })
    }

    /// The model's name.
    pub fn name(&self) -> &ModelName {
        &self.recipe.name
    }

    /// Whether the recipe has that variant.
    pub fn has(&self, variant: Variant) -> bool {
        self.recipe.variants.onnx(variant).is_some()
    }

    /// That variant's ONNX file.
    pub fn onnx(&self, variant: Variant) -> Option<PathBuf> {
        self.recipe.variants.onnx(variant).map(|onnx| self.folder.join(onnx))
    }

    /// Makes the bundle of one variant in `out`, a new or empty folder, and returns its manifest,
    /// unsigned.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(
        &self,
        variant: Variant,
        version: Version,
        backend: &dyn Backend,
        out: &Path,
    ) -> Result<Manifest, BuildError> {
        let mut model = self.load((variant, version), backend)?;
        let probes = self.measure_probes(&mut model)?;
        let calibration = match variant {
            Variant::Edge => self.calibration(version, backend)?,
            Variant::Cloud => None,
        };
        let thrift = match variant {
            Variant::Edge => None,
            Variant::Cloud => self.thrift(&mut model)?,
        };
        prepare_folder(out)?;
        let files = self.write_files(variant, &probes, &model.steps, out)?;
        let manifest = Manifest { files, calibration, thrift, ..model.draft };
        manifest.check()?;
        Ok(manifest)
    }

    /// Loads a variant, with all that the manifest will say but its files and threshold.
    fn load(
        &self,
        version: (Variant, Version),
        backend: &dyn Backend,
    ) -> Result<Model, BuildError> {
        let onnx = self.recipe.variants.onnx(version.0);
        let onnx = onnx.ok_or(BuildError::NoVariant(version.0))?;
        let session = backend.load(&self.folder.join(onnx), &SessionOptions::default())?;
        let mut draft = self.draft(version, session.inputs().to_vec(), session.outputs().to_vec());
        let steps = steps::rename(&mut draft.preprocess)?;
        draft.check_parts()?;
        let files = self.step_files(&steps)?;
        let labels = self.recipe.classes.as_ref().and_then(|c| c.labels.as_deref());
        let labels = labels.map_or(Ok(Vec::new()), |file| read_labels(&self.folder, file))?;
        let pipelines = Pipelines::new(&draft, &files, &labels)?;
        Ok(Model { runner: Runner::new(session, pipelines), draft, steps })
    }

    fn step_files(&self, steps: &[StepFile]) -> Result<StepFiles, BuildError> {
        let read = |file: &StepFile| {
            let bytes = read_step_file(&self.folder, &file.source)?;
            Ok((file.name.clone(), bytes))
        };
        steps.iter().map(read).collect()
    }

    fn write_files(
        &self,
        variant: Variant,
        probes: &ProbeSet,
        steps: &[StepFile],
        out: &Path,
    ) -> Result<BTreeMap<String, FileRef>, BuildError> {
        let onnx = self.recipe.variants.onnx(variant).map(|onnx| (onnx, MODEL_FILE));
        let labels = self.recipe.classes.as_ref().and_then(|c| c.labels.as_deref());
        let labels = labels.map(|labels| (labels, LABELS_FILE));
        let steps = steps.iter().map(|file| (file.source.as_str(), file.name.as_str()));
        let report = self.recipe.variants.report(variant);
        let sources =
            report.map(|folder| REPORT_FILES.map(|name| (format!("{folder}/{name}"), name)));
        let report = sources.iter().flatten().map(|(source, name)| (source.as_str(), *name));
        let mut names = vec![PROBES_FILE];
        let path = out.join(PROBES_FILE);
        fs::write(&path, probes.encode_to_vec()).map_err(io_error(&path))?;
        for (source, name) in onnx.into_iter().chain(labels).chain(steps).chain(report) {
            let source = self.folder.join(source);
            fs::copy(&source, out.join(name)).map_err(io_error(&source))?;
            names.push(name);
        }
        let hashed = names.into_iter().map(|name| {
            let path = out.join(name);
            Ok((name.to_owned(), file_ref(&path).map_err(io_error(&path))?))
        });
        hashed.collect()
    }

    fn read(&self, sources: &[Source]) -> Result<Batch, BuildError> {
        Batch::read(&self.folder, sources)
    }

    /// Probes are items spread evenly over the data, answered by the model that is shipped.
    fn measure_probes(&self, model: &mut Model) -> Result<ProbeSet, BuildError> {
        let wanted = probed_outputs(&model.draft);
        let data = self.read(&self.recipe.probes.inputs)?;
        let count = data.len().min(PROBES);
        let mut probes = Vec::with_capacity(count);
        for index in 0..count {
            let item = index * data.len() / count;
            let inputs = data.item(item)?;
            let call = Call { inputs: &inputs, outputs: &wanted, ..Call::default() };
            let reply = model.runner.answer(call);
            let reply: Reply = reply.map_err(|source| BuildError::Run { item, source })?;
            probes.push(Probe::new(&inputs, &reply.outputs));
        }
        Ok(ProbeSet { probes })
    }

    fn draft(
        &self,
        (variant, version): (Variant, Version),
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> Manifest {
        let recipe = self.recipe.clone();
        let bundled =
            |c: Classes| Classes { labels: c.labels.map(|_| LABELS_FILE.to_owned()), ..c };
        Manifest {
            format: FORMAT,
            model: recipe.name,
            version,
            variant,
            inputs,
            outputs,
            files: BTreeMap::new(),
            preprocess: recipe.preprocess,
            constants: recipe.constants,
            state: recipe.state,
            postprocess: recipe.postprocess,
            default_outputs: recipe.default_outputs,
            classes: recipe.classes.map(bundled),
            calibration: None,
            thrift: None,
            probes: Probes { file: PROBES_FILE.to_owned(), tolerance: recipe.probes.tolerance },
            never_leaves_device: recipe.never_leaves_device,
            provenance: recipe.provenance,
        }
    }
}

/// What probes compare: the default outputs, but a classifier's logits instead of its labels, which
/// may change places where two classes are nearly alike.
fn probed_outputs(manifest: &Manifest) -> Vec<String> {
    let mut wanted: Vec<String> = Vec::new();
    for name in &manifest.default_outputs {
        let name = match &manifest.classes {
            Some(classes) if manifest.output(name).is_none() && is_reading(name) => &classes.logits,
            _ => name,
        };
        if !wanted.contains(name) {
            wanted.push(name.clone());
        }
    }
    wanted
}

fn is_reading(name: &str) -> bool {
    [LABEL_OUTPUT, PROBABILITY_OUTPUT].contains(&name)
}

/// A variant that is loaded for measuring.
struct Model {
    runner: Runner,
    draft: Manifest,
    steps: Vec<StepFile>,
}

fn prepare_folder(out: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(out).map_err(io_error(out))?;
    let mut entries = fs::read_dir(out).map_err(io_error(out))?;
    if entries.next().is_some() {
        return Err(BuildError::NotEmpty(out.to_owned()));
    }
    Ok(())
}
