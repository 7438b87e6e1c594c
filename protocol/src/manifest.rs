//! What a bundle is: the manifest that lists its files by hash and says how to feed the model,
//! how to read its answers, and who signed it.
//!
//! A bundle is named by the SHA-256 of its manifest's exact bytes. The manifest names every file
//! by SHA-256 and length, so one signature over the manifest covers all of the bundle.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::id::{ContentHash, ModelName, Variant, Version};
use crate::limits::{BUNDLE_FILE_MAX_BYTES, BUNDLE_MAX_FILES};
use crate::tensor::DataType;
use crate::transfer::BlobRef;

mod answers;
mod calibration;
mod check;
mod pipeline;
mod sign;
mod thrift;
pub use answers::{
    Classes, Constant, LABEL_OUTPUT, PROBABILITY_OUTPUT, PostStep, Postprocess, StateLoop,
};
pub use calibration::{
    Acceptance, Bound, Calibration, ConfidenceRule, Reliability, ReliabilityBin, Score,
    SplitCounts, Truth,
};
pub use pipeline::{Color, Filter, Layout, Log, LogMel, MelOrder, MelScale, Part, Pipeline, Step};
pub use sign::{InvalidSignature, SignedManifest, SignerKey, SigningKey};
pub use thrift::{Thrift, ThriftEffect, ThriftTolerance};

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
    /// How what an application has becomes what the model takes; one pipeline for each thing that
    /// an application sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preprocess: Vec<Pipeline>,
    /// Inputs that never change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<Constant>,
    /// Outputs that are fed back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateLoop>,
    /// Outputs that are computed from the model's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub postprocess: Vec<Postprocess>,
    /// What a request gets that names no output. When empty, all that the model gives, but for its
    /// state, and all of `postprocess`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub default_outputs: Vec<String>,
    /// How the answer is read, for classifiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// When an edge answer is accepted; without it every one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Which inputs may travel in fewer bytes; of cloud variants. Programs that do not know of it refuse
    /// the bundle, so that whoever holds one can unpack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thrift: Option<Thrift>,
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

    /// The specification of an input.
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// The specification of an output.
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|o| o.name == name)
    }

    /// What an application sends: the model's inputs, but for constants and state, and with a
    /// pipeline's own input, `BYTES`, in the place of those that it feeds under another name.
    pub fn served_inputs(&self) -> Vec<TensorSpec> {
        let hidden = |spec: &TensorSpec| {
            self.constants.iter().any(|c| c.input == spec.name)
                || self.state.iter().any(|s| s.input == spec.name)
                || self.preprocess.iter().any(|p| {
                    p.input != spec.name && p.feeds().any(|(_, target)| target == spec.name)
                })
        };
        let own = self.inputs.iter().filter(|spec| !hidden(spec)).cloned();
        let renamed = self.preprocess.iter().filter(|p| self.input(&p.input).is_none());
        let bytes = |p: &Pipeline| spec(&p.input, DataType::Bytes, &[-1]);
        own.chain(renamed.map(bytes)).collect()
    }

    /// What an application gets or may ask for: the model's outputs, but for its state, then those
    /// of post-processing, then a classifier's labels and probabilities.
    pub fn served_outputs(&self) -> Vec<TensorSpec> {
        let is_state = |spec: &&TensorSpec| self.state.iter().any(|s| s.output == spec.name);
        let mut served: Vec<TensorSpec> =
            self.outputs.iter().filter(|o| !is_state(o)).cloned().collect();
        served.extend(self.postprocess.iter().map(|p| self.derived(p)));
        let k = i64::from(self.classes.as_ref().and_then(|c| c.top_k).unwrap_or(1));
        for (name, datatype) in
            [(LABEL_OUTPUT, DataType::Bytes), (PROBABILITY_OUTPUT, DataType::Fp32)]
        {
            if self.classes.is_some() && self.output(name).is_none() {
                served.push(spec(name, datatype, &[-1, k]));
            }
        }
        served
    }

    fn derived(&self, postprocess: &Postprocess) -> TensorSpec {
        let mut shape = self.output(&postprocess.from).map_or(Vec::new(), |o| o.shape.clone());
        for step in &postprocess.steps {
            if matches!(step, PostStep::MeanPool { .. }) && shape.len() == 3 {
                shape.remove(1);
            }
        }
        TensorSpec { name: postprocess.output.clone(), datatype: DataType::Fp32, shape }
    }

    /// Whether it can take a stream in pieces: it feeds state back, or cuts sounds into frames.
    pub fn takes_sequences(&self) -> bool {
        let cuts = |p: &Pipeline| p.steps.iter().any(|step| matches!(step, Step::Frame { .. }));
        !self.state.is_empty() || self.preprocess.iter().any(cuts)
    }

    /// Bytes of all files together.
    pub fn size_bytes(&self) -> u64 {
        self.files.values().map(|f| f.size_bytes).sum()
    }
}

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

#[cfg(test)]
mod tests;
