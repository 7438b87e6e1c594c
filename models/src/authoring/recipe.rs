//! What `model.toml` may say. Unknown words are refused.

use std::collections::BTreeMap;

use protocol::id::{ModelName, Variant};
use protocol::manifest::{Classes, Constant, Pipeline, Postprocess, StateLoop};
use protocol::tensor::DataType;
use protocol::transport::Transport;
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
    /// `[[preprocess]]`: as in the manifest; steps name files of this folder.
    #[serde(default)]
    pub preprocess: Vec<Pipeline>,
    /// `[[constants]]`: as in the manifest.
    #[serde(default)]
    pub constants: Vec<Constant>,
    /// `[[state]]`: as in the manifest.
    #[serde(default)]
    pub state: Vec<StateLoop>,
    /// `[[postprocess]]`: as in the manifest.
    #[serde(default)]
    pub postprocess: Vec<Postprocess>,
    /// As in the manifest.
    #[serde(default)]
    pub default_outputs: Vec<String>,
    /// `[classes]`: as in the manifest; `labels` names a file of this folder.
    pub classes: Option<Classes>,
    /// `[variants.edge]` and `[variants.cloud]`.
    pub variants: Variants,
    /// `[probes]`.
    pub probes: ProbesRecipe,
    /// `[calibration]`; without it every edge answer is accepted.
    pub calibration: Option<CalibrationRecipe>,
    /// `[thrift]`; without it inputs are sent to the cloud as they are.
    pub thrift: Option<ThriftRecipe>,
}

/// What may travel to the cloud in fewer bytes, measured on the data of `[calibration]` (of `[probes]` where
/// there are none): inputs with their forms, `inputs = { image = "int8" }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThriftRecipe {
    /// `float16` (a half of the bytes) or `int8` (a quarter) for each input.
    pub inputs: BTreeMap<String, Transport>,
    /// The share of answers whose class may change, for a classifier: no more than that with 95 % confidence.
    pub max_changed: Option<f64>,
    /// How far a number of an output may lie from what it would be, `|a - b| <= max_difference * (1 + |b|)`.
    pub max_difference: Option<f32>,
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
    report: Option<String>,
}

impl Variants {
    /// The variant's ONNX file, relative to the folder.
    pub fn onnx(&self, variant: Variant) -> Option<&str> {
        self.recipe(variant).map(|recipe| recipe.onnx.as_str())
    }

    /// The folder with `report.json` and `report.html` of how the variant was made, relative to the folder; the bundle
    /// carries them.
    pub fn report(&self, variant: Variant) -> Option<&str> {
        self.recipe(variant).and_then(|recipe| recipe.report.as_deref())
    }

    fn recipe(&self, variant: Variant) -> Option<&VariantRecipe> {
        match variant {
            Variant::Edge => self.edge.as_ref(),
            Variant::Cloud => self.cloud.as_ref(),
        }
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
    /// How much accuracy edge and cloud together may lose against the cloud alone on these data, as a
    /// share; 0.005, half a point, when neither this nor `risk` is given. No bound follows.
    pub max_drop: Option<f64>,
    /// The largest share of accepted answers that may be wrong where the cloud is right, in place of
    /// `max_drop`; a bound.
    pub risk: Option<f64>,
    /// With which probability `risk` must hold; 0.95 when absent.
    pub confidence: Option<f64>,
    /// The right class of each item. Without them, the cloud's answers are taken for right, which
    /// bounds disagreement only.
    pub labels: Option<Labels>,
    /// `[[calibration.inputs]]`: one for each input.
    pub inputs: Vec<Source>,
}

/// How the threshold is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Observed on the data, without a bound.
    MaxDrop(f64),
    /// With a bound.
    Bound {
        /// The risk.
        risk: f64,
        /// With which probability it must hold.
        confidence: f64,
    },
}

impl CalibrationRecipe {
    /// What is wanted; `None` where the recipe wants both.
    pub fn goal(&self) -> Option<Goal> {
        match (self.max_drop, self.risk) {
            (Some(_), Some(_)) => None,
            (max_drop, None) => Some(Goal::MaxDrop(max_drop.unwrap_or(0.005))),
            (None, Some(risk)) => {
                Some(Goal::Bound { risk, confidence: self.confidence.unwrap_or(0.95) })
            }
        }
    }
}

/// Items for one input, as an application would send them, each as a batch of one. One of:
///
/// ```toml
/// { input = "image", file = "images.u8", datatype = "UINT8", item_shape = [28, 28] }
/// { input = "image", files = ["cat.jpg", "dog.jpg"] } # each file is an item: images, WAV
/// { input = "text", lines = "sentences.txt" }         # each line that is not empty is an item
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "SourceText")]
pub struct Source {
    /// The input that is fed.
    pub input: String,
    /// Where its items are.
    pub items: Items,
}

/// Where items are; files are relative to the folder.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Raw numbers: little-endian, row-major, one item after the other, no header.
    Raw {
        /// The file.
        file: String,
        /// The datatype, any but `BYTES`.
        datatype: DataType,
        /// One item's dimensions; it is sent as `[1, ...]`.
        item_shape: Vec<i64>,
    },
    /// Files that are sent as they are, as `BYTES` `[1]`.
    Files(Vec<String>),
    /// A file of UTF-8 lines, each sent as `BYTES` `[1]`.
    Lines(String),
}

/// A source as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceText {
    input: String,
    file: Option<String>,
    datatype: Option<DataType>,
    item_shape: Option<Vec<i64>>,
    files: Option<Vec<String>>,
    lines: Option<String>,
}

impl TryFrom<SourceText> for Source {
    type Error = &'static str;

    fn try_from(text: SourceText) -> Result<Self, Self::Error> {
        let numbers = (text.file, text.datatype, text.item_shape);
        let items = match (numbers, text.files, text.lines) {
            ((Some(file), Some(datatype), Some(item_shape)), None, None) => {
                Items::Raw { file, datatype, item_shape }
            }
            ((None, None, None), Some(files), None) => Items::Files(files),
            ((None, None, None), None, Some(lines)) => Items::Lines(lines),
            _ => return Err("give `file`, `datatype` and `item_shape`, or `files`, or `lines`"),
        };
        Ok(Self { input: text.input, items })
    }
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
