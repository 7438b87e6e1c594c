//! Makes bundles from an authoring folder: `model.toml` ([`recipe`]) beside ONNX files, labels and
//! data.
//!
//! Building copies and hashes the files, reads what the model takes and gives from a real session,
//! measures the probes with it, and for the edge variant chooses the threshold. The result is a
//! manifest for the operator to sign.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use protocol::id::{ModelName, Variant, Version};
use protocol::manifest::{
    Calibration, Classes, FORMAT, FileRef, InvalidManifest, MODEL_FILE, Manifest, Probes,
    TensorSpec,
};
use protocol::tensor::Tensor;
use protocol::wire::{Probe, ProbeSet};

use crate::backend::{Backend, LoadError, SessionOptions};
use crate::bundle::{BundleError, file_ref, read_labels};
use crate::calibrate::{Item, NoThreshold, choose};
use crate::confidence::{Top, top_classes};
use crate::error::RunError;
use crate::preprocess::{InvalidPipeline, Preprocess};
use crate::runner::Runner;

mod data;
pub mod recipe;

use data::{Batch, labels_of};
use recipe::{CalibrationRecipe, Recipe, Source};

/// The file that describes an authoring folder.
pub const RECIPE_FILE: &str = "model.toml";
/// How many probes a bundle gets, if there are as many items.
pub const PROBES: usize = 64;
const LABELS_FILE: &str = "labels.json";
const PROBES_FILE: &str = "probes.pb";

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
    Pipeline(#[from] InvalidPipeline),
    /// Labels that cannot be used.
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
    /// No threshold can be chosen.
    #[error(transparent)]
    Threshold(#[from] NoThreshold),
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
        let mut model = self.load(variant, backend)?;
        let probes = self.measure_probes(&mut model.runner)?;
        let calibration = match (variant, &self.recipe.calibration) {
            (Variant::Edge, Some(recipe)) => Some(self.calibrate(recipe, &mut model, backend)?),
            _ => None,
        };
        self.check_labels()?;
        prepare_folder(out)?;
        let files = self.write_files(variant, &probes, out)?;
        let manifest = self.manifest((variant, version), model, files, calibration);
        manifest.check()?;
        Ok(manifest)
    }

    fn load(&self, variant: Variant, backend: &dyn Backend) -> Result<Model, BuildError> {
        let onnx = self.recipe.variants.onnx(variant).ok_or(BuildError::NoVariant(variant))?;
        let session = backend.load(&self.folder.join(onnx), &SessionOptions::default())?;
        let (inputs, outputs) = (session.inputs().to_vec(), session.outputs().to_vec());
        let preprocess = Preprocess::new(&self.recipe.preprocess, &inputs)?;
        Ok(Model { runner: Runner::new(session, preprocess, None), inputs, outputs })
    }

    fn check_labels(&self) -> Result<(), BuildError> {
        let file = self.recipe.classes.as_ref().and_then(|c| c.labels.as_deref());
        file.map_or(Ok(()), |file| Ok(read_labels(&self.folder, file).map(drop)?))
    }

    fn write_files(
        &self,
        variant: Variant,
        probes: &ProbeSet,
        out: &Path,
    ) -> Result<BTreeMap<String, FileRef>, BuildError> {
        let onnx = self.recipe.variants.onnx(variant).map(|onnx| (onnx, MODEL_FILE));
        let labels = self.recipe.classes.as_ref().and_then(|c| c.labels.as_deref());
        let labels = labels.map(|labels| (labels, LABELS_FILE));
        let mut names = vec![PROBES_FILE];
        let path = out.join(PROBES_FILE);
        fs::write(&path, probes.encode_to_vec()).map_err(io_error(&path))?;
        for (source, name) in onnx.into_iter().chain(labels) {
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
    fn measure_probes(&self, runner: &mut Runner) -> Result<ProbeSet, BuildError> {
        let data = self.read(&self.recipe.probes.inputs)?;
        let count = data.len().min(PROBES);
        let mut probes = Vec::with_capacity(count);
        for index in 0..count {
            let item = index * data.len() / count;
            let inputs = data.item(item)?;
            let (outputs, _) =
                runner.answer(&inputs, &[]).map_err(|source| BuildError::Run { item, source })?;
            probes.push(Probe::new(&inputs, &outputs));
        }
        Ok(ProbeSet { probes })
    }

    fn calibrate(
        &self,
        recipe: &CalibrationRecipe,
        edge: &mut Model,
        backend: &dyn Backend,
    ) -> Result<Calibration, BuildError> {
        let classes = self.recipe.classes.as_ref().ok_or(BuildError::NoClasses)?;
        let mut cloud = self.load(Variant::Cloud, backend)?;
        let data = self.read(&recipe.inputs)?;
        let labels = labels_of(&self.folder, &recipe.labels, data.len())?;
        let mut items = Vec::with_capacity(data.len());
        for (index, label) in labels.into_iter().enumerate() {
            let inputs = data.item(index)?;
            let top = |model: &mut Model| {
                model
                    .top(&inputs, classes)
                    .map_err(|source| BuildError::Run { item: index, source })
            };
            let (edge, cloud) = (top(edge)?, top(&mut cloud)?);
            items.push(Item {
                confidence: edge.confidence,
                edge_correct: edge.class == label,
                cloud_correct: cloud.class == label,
            });
        }
        Ok(choose(&items, recipe.max_drop)?)
    }

    fn manifest(
        &self,
        (variant, version): (Variant, Version),
        model: Model,
        files: BTreeMap<String, FileRef>,
        calibration: Option<Calibration>,
    ) -> Manifest {
        let labels = |c: &Classes| c.labels.as_ref().map(|_| LABELS_FILE.to_owned());
        Manifest {
            format: FORMAT,
            model: self.recipe.name.clone(),
            version,
            variant,
            inputs: model.inputs,
            outputs: model.outputs,
            files,
            preprocess: self.recipe.preprocess.clone(),
            classes: self
                .recipe
                .classes
                .as_ref()
                .map(|c| Classes { logits: c.logits.clone(), labels: labels(c) }),
            calibration,
            probes: Probes {
                file: PROBES_FILE.to_owned(),
                tolerance: self.recipe.probes.tolerance,
            },
            never_leaves_device: self.recipe.never_leaves_device,
            provenance: self.recipe.provenance.clone(),
        }
    }
}

/// A variant that is loaded for measuring.
struct Model {
    runner: Runner,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Model {
    /// The most probable class of one item, asked alone: batching may change the numbers.
    fn top(&mut self, inputs: &[Tensor], classes: &Classes) -> Result<Top, RunError> {
        let (outputs, _) = self.runner.answer(inputs, std::slice::from_ref(&classes.logits))?;
        let tops = outputs.first().map_or(Ok(Vec::new()), top_classes)?;
        let none = || RunError::Failed(format!("{:?} is empty", classes.logits));
        tops.first().copied().ok_or_else(none)
    }
}

fn prepare_folder(out: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(out).map_err(io_error(out))?;
    let mut entries = fs::read_dir(out).map_err(io_error(out))?;
    if entries.next().is_some() {
        return Err(BuildError::NotEmpty(out.to_owned()));
    }
    Ok(())
}
