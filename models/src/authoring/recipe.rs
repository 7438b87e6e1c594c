//! What `model.toml` may say. Unknown words are refused.

use std::collections::BTreeMap;

use protocol::id::{ModelName, Variant};
use protocol::manifest::{Classes, Pipeline};
use protocol::tensor::DataType;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model's name.
    pub name: ModelName,
    /// True keeps the device from ever sending its data on; false when absent.
    #[serde(default)]
    pub never_leaves_device: bool,
    /// `[provenance]`: description, licence, origin, figures; for people.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
    /// `[[preprocess]]`: as in the manifest.
    #[serde(default)]
    pub preprocess: Vec<Pipeline>,
    /// `[classes]`: as in the manifest; `labels` names a file of this folder.
    pub classes: Option<Classes>,
    /// `[variants.edge]` and `[variants.cloud]`.
    pub variants: Variants,
    /// `[probes]`.
    pub probes: ProbesRecipe,
    /// `[calibration]`; without it every edge answer is accepted.
    pub calibration: Option<CalibrationRecipe>,
}

/// The builds of the model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variants {
    edge: Option<VariantRecipe>,
    cloud: Option<VariantRecipe>,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct VariantRecipe {
    onnx: String,
}

impl Variants {
    /// The variant's ONNX file, relative to the folder.
    pub fn onnx(&self, variant: Variant) -> Option<&str> {
        let recipe = match variant {
            Variant::Edge => &self.edge,
            Variant::Cloud => &self.cloud,
        };
        recipe.as_ref().map(|recipe| recipe.onnx.as_str())
    }
}

/// What probes are made from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbesRecipe {
    /// How far an answer may lie from the measured one: `|a - b| <= tolerance * (1 + |b|)`.
    pub tolerance: f32,
    /// `[[probes.inputs]]`: one for each input.
    pub inputs: Vec<Source>,
}

/// What the threshold is chosen on. These data should have been used for nothing else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecipe {
    /// How much accuracy edge and cloud together may lose against the cloud alone, as a share;
    /// 0.005, half a point, when absent.
    #[serde(default = "default_max_drop")]
    pub max_drop: f64,
    /// The right class of each item.
    pub labels: Labels,
    /// `[[calibration.inputs]]`: one for each input.
    pub inputs: Vec<Source>,
}

fn default_max_drop() -> f64 {
    0.005
}

/// A file of raw items, as an application would send them: little-endian, row-major, one after
/// the other, no header.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The input that is fed.
    pub input: String,
    /// The file, relative to the folder.
    pub file: String,
    /// The datatype, any but `BYTES`.
    pub datatype: DataType,
    /// One item's dimensions; each is sent as a batch of one, `[1, ...]`.
    pub item_shape: Vec<i64>,
}

/// A file of class numbers, one per item.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// The file, relative to the folder.
    pub file: String,
    /// The datatype of each number.
    pub datatype: DataType,
}
