//! What a bundle is: the manifest that lists its files by hash and says how to feed the model,
//! how to read its answers, and who signed it.
//!
//! A bundle is named by the SHA-256 of its manifest's exact bytes. The manifest names every file
//! by SHA-256 and length, so one signature over the manifest covers all of the bundle.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::id::{ContentHash, ModelName, Variant, Version};
use crate::limits::{BUNDLE_FILE_MAX_BYTES, BUNDLE_MAX_FILES, TENSOR_MAX_RANK};
use crate::tensor::DataType;
use crate::transfer::BlobRef;

mod sign;
pub use sign::{InvalidSignature, SignedManifest, SignerKey, SigningKey};

/// The only manifest format so far.
pub const FORMAT: u32 = 1;

/// The content of a bundle and how to use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// For devices or for the cloud.
    pub variant: Variant,
    /// The model's inputs.
    pub inputs: Vec<TensorSpec>,
    /// The model's outputs.
    pub outputs: Vec<TensorSpec>,
    /// Every file of the bundle beside the manifest, by name.
    pub files: BTreeMap<String, FileRef>,
    /// How what an application has becomes what the model takes; one pipeline per input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preprocess: Vec<Pipeline>,
    /// How the answer is read, for classifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// When an edge answer is accepted; without it every one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Inputs with expected outputs, answered before activation.
    pub probes: Probes,
    /// True forbids deferral, checking and sampling.
    #[serde(default)]
    pub never_leaves_device: bool,
    /// Licence, origin, figures: for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provenance: BTreeMap<String, String>,
}

/// One input or output of the model. Dimensions are -1 where any size goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name in the ONNX graph.
    pub name: String,
    /// Its datatype.
    pub datatype: DataType,
    /// Its dimensions.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Whether a tensor of that datatype and shape can be given to the model as it is.
    pub fn accepts(&self, datatype: DataType, shape: &[i64]) -> bool {
        let fits = |(spec, actual): (&i64, &i64)| *spec < 0 || spec == actual;
        self.datatype == datatype
            && self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(fits)
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRef {
    /// SHA-256 of its bytes.
    pub sha256: ContentHash,
    /// Its length.
    pub size_bytes: u64,
}

impl From<FileRef> for BlobRef {
    fn from(file: FileRef) -> Self {
        Self { hash: file.sha256, size_bytes: file.size_bytes }
    }
}

/// The steps that turn an application's input into the model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The model's input that is fed by this pipeline.
    pub input: String,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One step of a pipeline over an image. A `BYTES` tensor holds encoded images; a `UINT8` tensor
/// `[n,h,w]` or `[n,h,w,c]` holds pixels and skips `decode`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// JPEG or PNG bytes to pixels, in these colours.
    Decode {
        /// Grey or RGB.
        color: Color,
    },
    /// Scale so that the shorter side has this many pixels.
    ResizeShorter {
        /// Pixels.
        size: u32,
    },
    /// Scale to exactly this size.
    Resize {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Cut the middle out.
    CenterCrop {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Pixels 0..255 to `(x - mean) / std`, one pair for all channels or one per channel.
    Normalize {
        /// Subtracted.
        mean: Vec<f32>,
        /// Divided by.
        std: Vec<f32>,
    },
    /// The order of the model's axes.
    Layout {
        /// `nchw` or `nhwc`.
        order: Layout,
    },
}

/// The colours of a decoded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// The order of a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, height, width.
    Nchw,
    /// Batch, height, width, channel.
    Nhwc,
}

/// How a classifier's answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The output `[n, classes]` that holds the logits.
    pub logits: String,
    /// The file with the labels, a JSON array in class order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
}

/// When an edge answer is accepted: its confidence (the softmax of its most probable class, lowest
/// over the items of the request) reaches the threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The least confidence, 0 to 1.
    pub threshold: f32,
    /// How it was chosen.
    pub method: String,
    /// On how many labelled items.
    pub samples: u64,
    /// The share of those items that would have been deferred.
    pub deferral_rate: f64,
}

/// The probes of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// The file with them, a `ProbeSet` message.
    pub file: String,
    /// How far an output may lie from the expected one: `|a - b| <= tolerance * (1 + |b|)`.
    pub tolerance: f32,
}

/// Why a manifest is refused although it is well-formed JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Not JSON of this shape.
    #[error("not a manifest: {0}")]
    Malformed(String),
    /// A format that this build does not know.
    #[error("manifest format {0} is unknown here; this program may be too old")]
    Format(u32),
    /// A name that could leave the bundle's folder, or too many or too large files.
    #[error(
        "file {0:?} has no plain name, or is larger than {BUNDLE_FILE_MAX_BYTES} bytes, or one of more than {BUNDLE_MAX_FILES}"
    )]
    File(String),
    /// A file that is named but not listed.
    #[error("the manifest uses the file {0:?} but does not list it")]
    Missing(String),
    /// Tensors, pipelines or numbers that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// The ONNX file of every bundle.
pub const MODEL_FILE: &str = "model.onnx";

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`InvalidManifest`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| InvalidManifest::Malformed(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The exact bytes that are signed and hashed.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest holds nothing that JSON cannot")
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`InvalidManifest`].
    pub fn check(&self) -> Result<(), InvalidManifest> {
        if self.format != FORMAT {
            return Err(InvalidManifest::Format(self.format));
        }
        self.check_files()?;
        self.check_tensors()?;
        self.check_numbers()
    }

    fn check_files(&self) -> Result<(), InvalidManifest> {
        for (index, (name, file)) in self.files.iter().enumerate() {
            let plain = name.parse::<ModelName>().is_ok(); // the same safe characters
            if !plain || file.size_bytes > BUNDLE_FILE_MAX_BYTES || index >= BUNDLE_MAX_FILES {
                return Err(InvalidManifest::File(name.clone()));
            }
        }
        let labels = self.classes.as_ref().and_then(|c| c.labels.as_deref());
        for used in
            [Some(MODEL_FILE), Some(self.probes.file.as_str()), labels].into_iter().flatten()
        {
            if !self.files.contains_key(used) {
                return Err(InvalidManifest::Missing(used.to_owned()));
            }
        }
        Ok(())
    }

    fn check_tensors(&self) -> Result<(), InvalidManifest> {
        let contradiction = |text: String| Err(InvalidManifest::Contradiction(text));
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return contradiction("a model has at least one input and one output".into());
        }
        for spec in self.inputs.iter().chain(&self.outputs) {
            if spec.shape.len() > TENSOR_MAX_RANK {
                return contradiction(format!("tensor {:?} has too many dimensions", spec.name));
            }
        }
        for pipeline in &self.preprocess {
            if self.input(&pipeline.input).is_none() {
                return contradiction(format!(
                    "a pipeline feeds {:?}, which is no input",
                    pipeline.input
                ));
            }
        }
        match &self.classes {
            Some(classes) if self.outputs.iter().all(|o| o.name != classes.logits) => {
                contradiction(format!("the logits {:?} are no output", classes.logits))
            }
            None if self.calibration.is_some() => {
                contradiction("a threshold needs classes to read a confidence from".into())
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), InvalidManifest> {
        let threshold = self.calibration.as_ref().map_or(0.0, |c| c.threshold);
        let tolerance = self.probes.tolerance;
        // Comparisons written so that NaN fails them.
        if !((0.0..=1.0).contains(&threshold) && tolerance >= 0.0 && tolerance.is_finite()) {
            let text = "threshold must lie in 0..1 and the probes' tolerance must be >= 0";
            return Err(InvalidManifest::Contradiction(text.into()));
        }
        Ok(())
    }

    /// The specification of an input.
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// Bytes of all files together.
    pub fn size_bytes(&self) -> u64 {
        self.files.values().map(|f| f.size_bytes).sum()
    }
}

#[cfg(test)]
mod tests;
