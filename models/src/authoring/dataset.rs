//! Data to measure a model with, without making a bundle of it: items as applications send them, the steps
//! that turn them into a model's inputs, and the right classes where they are known.
//!
//! A dataset is described by a `data.toml`:
//!
//! ```toml
//! labels = { file = "labels.u8", datatype = "UINT8" } # may be absent
//!
//! [[inputs]]
//! input = "image"
//! file = "images.u8"
//! datatype = "UINT8"
//! item_shape = [28, 28]
//!
//! [[preprocess]] # as in model.toml; an input without steps goes to the model as it is
//! input = "image"
//! steps = [{ step = "normalize", mean = [0.0], std = [255.0] }, { step = "layout", order = "nchw" }]
//! ```
//!
//! The `model.toml` of an authoring folder will do too: what it chooses its threshold on is taken.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::manifest::{Constant, Pipeline, TensorSpec};
use protocol::tensor::Tensor;
use serde::Deserialize;

use super::data::{Batch, labels_of};
use super::recipe::{Labels, Recipe, Source};
use super::{BuildError, RECIPE_FILE, io_error};
use crate::bundle::read_step_file;
use crate::preprocess::{Moment, Preprocess, StepFiles};

/// The file that describes a dataset in a folder.
pub const DATASET_FILE: &str = "data.toml";

/// What `data.toml` may say. Unknown words are refused.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    inputs: Vec<Source>,
    labels: Option<Labels>,
    #[serde(default)]
    preprocess: Vec<Pipeline>,
    #[serde(default)]
    constants: Vec<Constant>,
}

/// Items with what turns them into a model's inputs.
pub struct Dataset {
    items: Batch,
    labels: Option<Vec<usize>>,
    pipelines: Vec<Pipeline>,
    constants: Vec<Constant>,
    files: StepFiles,
    path: PathBuf,
}

/// A [`Dataset`] for one model.
pub struct ModelData<'d> {
    dataset: &'d Dataset,
    preprocess: Preprocess,
    constants: Vec<Tensor>,
}

impl Dataset {
    /// Reads a dataset: a folder with `data.toml` or `model.toml`, or such a file itself.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let file = match path.is_dir() {
            true if path.join(DATASET_FILE).exists() => path.join(DATASET_FILE),
            true => path.join(RECIPE_FILE),
            false => path.to_owned(),
        };
        let text = fs::read_to_string(&file).map_err(io_error(&file))?;
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let description = describe(&file, &text)?;
        let items = Batch::read(&folder, &description.inputs)?;
        let labels = description.labels.as_ref().map(|l| labels_of(&folder, l, items.len()));
        let mut pipelines = description.preprocess;
        let files = super::steps::rename(&mut pipelines)?.into_iter().map(|file| {
            let bytes = read_step_file(&folder, &file.source)?;
            Ok::<_, BuildError>((file.name, bytes))
        });
        Ok(Self {
            files: files.collect::<Result<_, _>>()?,
            labels: labels.transpose()?,
            constants: description.constants,
            pipelines,
            items,
            path: file,
        })
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// One item as an application sends it.
    pub(super) fn item(&self, index: usize) -> Result<Vec<Tensor>, BuildError> {
        self.items.item(index)
    }

    /// How many bytes an application sends for an item, on average.
    ///
    /// # Errors
    /// [`BuildError`] for an item that cannot be read.
    #[allow(clippy::cast_precision_loss)] // a mean
    pub fn item_bytes(&self) -> Result<f64, BuildError> {
        let mut bytes = 0;
        for index in 0..self.len() {
            bytes += self.item(index)?.iter().map(|input| input.data().len()).sum::<usize>();
        }
        Ok(bytes as f64 / self.len().max(1) as f64)
    }

    /// Whether there are none; such data are refused when they are read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The right class of each item, where the data say it.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The file that describes it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data as one model takes them.
    ///
    /// # Errors
    /// [`BuildError`] for steps that do not lead to its inputs.
    pub fn for_model(&self, inputs: &[TensorSpec]) -> Result<ModelData<'_>, BuildError> {
        let preprocess = Preprocess::for_inputs(&self.pipelines, inputs, &self.files)
            .map_err(crate::runner::InvalidPipelines::from)?;
        let constants = self.constants.iter().map(|c| crate::stream::constant(c, inputs));
        let constants = constants.collect::<Result<_, _>>().map_err(|error| BuildError::Data {
            file: self.path.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(ModelData { dataset: self, preprocess, constants })
    }
}

impl ModelData<'_> {
    /// One item as the model's inputs.
    ///
    /// # Errors
    /// [`BuildError`] for an item that cannot be read or used.
    pub fn inputs(&self, index: usize) -> Result<Vec<Tensor>, BuildError> {
        let raw = self.dataset.items.item(index)?;
        let prepared = self.preprocess.apply(&raw, &Moment::default());
        let prepared = prepared.map_err(|source| BuildError::Run { item: index, source })?;
        let frames = prepared.frames.map(|frames| frames.tensor);
        let given = prepared.tensors.into_iter().chain(frames);
        Ok(given.chain(self.constants.iter().cloned()).collect())
    }
}

fn describe(file: &Path, text: &str) -> Result<Description, BuildError> {
    let wrong = |message: String| BuildError::Recipe { path: file.to_owned(), message };
    if file.file_name().is_none_or(|name| name != RECIPE_FILE) {
        return toml::from_str(text).map_err(|e| wrong(e.to_string()));
    }
    let recipe: Recipe = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let (inputs, labels) = match recipe.calibration {
        Some(calibration) => (calibration.inputs, calibration.labels),
        None => (recipe.probes.inputs, None),
    };
    let (preprocess, constants) = (recipe.preprocess, recipe.constants);
    Ok(Description { inputs, labels, preprocess, constants })
}
