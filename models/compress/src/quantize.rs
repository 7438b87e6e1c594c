//! Integers instead of floats, in the form that ONNX Runtime fuses on CPUs.
//!
//! *Static*: every value between quantized nodes goes through `QuantizeLinear` and `DequantizeLinear`, with
//! a range that was measured before ([`crate::calibrate`]). Activations are `uint8` with a zero point, weights
//! `int8` with a scale for each output channel, a bias is `int32` whose scale is the vector `x * w[c]`.
//! *Dynamic*: a matrix product measures its own input at run time; for transformers, whose ranges differ from
//! token to token. *Weights only*: a matrix product reads floats and has weights of eight or four bits. *Rows*: embedding
//! tables, `int8` with a scale for each row.
//!
//! [`rules`] says which operator is treated how, [`plan`](mod@plan) applies that to a graph.

use std::collections::BTreeSet;

use models::onnx::proto::NodeProto;
use models::onnx::{Graph, Model};
use serde::{Deserialize, Serialize};

use crate::calibrate::Seen;
use crate::error::CompressError;
use crate::histogram::Method;

mod blocks;
mod dynamic;
mod emit;
pub mod plan;
pub mod refine;
mod rows;
pub mod rules;
pub mod weights;

pub use plan::{Plan, plan};
pub use refine::{Refined, refine};

/// How activations are found their ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// From calibration, before.
    Static,
    /// At run time, in matrix products only.
    Dynamic,
    /// Not at all: matrix products have weights of eight bits.
    Int8Weights,
    /// Not at all: matrix products have weights of four bits.
    Int4Weights,
}

impl Scheme {
    /// Of the weights.
    fn bits(self) -> u32 {
        if self == Self::Int4Weights { 4 } else { 8 }
    }
}

/// How weights become integers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// To the nearest.
    #[default]
    Nearest,
    /// To the nearest; the bias takes up the mean error.
    BiasCorrected,
    /// So that the layer's output moves least ([`mod@refine`]).
    LeastSquares,
}

/// What to do to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// How activations are found their ranges.
    pub scheme: Scheme,
    /// How a range is read from what was seen; for [`Scheme::Static`].
    pub method: Method,
    /// One scale for each output channel of the weights, or one for all.
    pub per_channel: bool,
    /// `int8` activations instead of `uint8`: for processors that prefer them.
    pub signed: bool,
    /// Seven bits of the weights only: for processors that would overflow (x86 without VNNI).
    pub narrow: bool,
    /// Embedding tables too.
    pub rows: bool,
    /// Nodes that stay in float, by the name of their first output.
    pub float: BTreeSet<String>,
    /// Matrix products among these get weights of eight bits all the same, and only their inputs stay in float.
    pub light: bool,
    /// How weights become integers. Other than to the nearest only with a scale for each output channel.
    pub rounding: Rounding,
    /// Whether channels are evened out before ([`crate::equalize`]).
    pub even: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            scheme: Scheme::Static,
            method: Method::MinMax,
            per_channel: true,
            signed: false,
            narrow: false,
            rows: true,
            float: BTreeSet::new(),
            light: false,
            rounding: Rounding::Nearest,
            even: false,
        }
    }
}

impl Recipe {
    /// In few words.
    pub fn describe(&self) -> String {
        let mut words = match self.scheme {
            Scheme::Static => vec!["static".to_owned(), self.method.to_string()],
            Scheme::Dynamic => vec!["dynamic".to_owned()],
            Scheme::Int8Weights => vec!["int8 weights".to_owned()],
            Scheme::Int4Weights => vec!["int4 weights".to_owned()],
        };
        let extra = [
            (!self.per_channel, "per-tensor"),
            (self.signed, "int8 activations"),
            (self.narrow, "7-bit weights"),
            (self.even, "evened out"),
            (self.rounding == Rounding::BiasCorrected, "bias corrected"),
            (self.rounding == Rounding::LeastSquares, "least squares"),
        ];
        words.extend(extra.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()));
        if !self.float.is_empty() {
            let how = if self.light { "with float inputs" } else { "in float" };
            words.push(format!("{} {how}", self.float.len()));
        }
        words.join(", ")
    }
}

/// A quantized model.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The model.
    pub model: Model,
    /// The quantized nodes that a runtime fuses, as operators of the float model.
    pub wanted: Vec<String>,
    /// Nodes that stay in float for their form, or because nothing is known of them, with the reason.
    pub left: Vec<(String, &'static str)>,
}

/// Quantizes a folded model, weights to the nearest whatever the recipe says.
///
/// # Errors
/// [`CompressError`]: an opset that cannot be raised to 13, weights that are no numbers.
pub fn quantize(model: &Model, seen: &Seen, recipe: &Recipe) -> Result<Quantized, CompressError> {
    quantize_refined(model, (seen, &Refined::default()), recipe)
}

/// Quantizes a folded model, with weights that were rounded before.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_refined(
    model: &Model,
    (seen, refined): (&Seen, &Refined),
    recipe: &Recipe,
) -> Result<Quantized, CompressError> {
    let mut model = model.clone();
    model.raise_to_13()?;
    weights::check(model.graph())?;
    let mut wanted = Vec::new();
    let mut left = foreign(model.graph());
    let mut in_blocks = 0;
    match recipe.scheme {
        Scheme::Static => {
            let plan = plan(&model, &recipe.float, Some((seen, recipe.method)));
            wanted.extend(plan.fusable().map(str::to_owned));
            left.extend(plan.left.iter().map(|(name, reason)| (name.clone(), *reason)));
            emit::emit(model.graph_mut(), &plan, (seen, refined), recipe)?;
        }
        Scheme::Dynamic => wanted.extend(dynamic::quantize(model.graph_mut(), refined, recipe)?),
        Scheme::Int8Weights | Scheme::Int4Weights => {
            let named = |output: &str| !recipe.float.contains(output);
            let bits = recipe.scheme.bits();
            in_blocks += blocks::quantize(model.graph_mut(), (bits, refined), named)?;
        }
    }
    if recipe.light {
        let named = |output: &str| recipe.float.contains(output);
        in_blocks += blocks::quantize(model.graph_mut(), (8, &Refined::default()), named)?;
    }
    if in_blocks > 0 {
        model.set_opset(blocks::DOMAIN, 1);
    }
    if recipe.rows {
        rows::quantize(model.graph_mut(), &recipe.float)?;
    }
    model.graph_mut().remove_dead();
    let producer = model.head_mut();
    producer.producer_name = Some("outrigger".to_owned());
    producer.producer_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    Ok(Quantized { model, wanted, left })
}

/// Nodes of operators that are not the standard's: nothing is known of them.
fn foreign(graph: &Graph) -> Vec<(String, &'static str)> {
    let foreign = graph.nodes().filter(|(_, node)| !matches!(node.domain(), "" | "ai.onnx"));
    let output = |(_, node): (_, &NodeProto)| node.output.first().cloned();
    foreign
        .filter_map(output)
        .map(|output| (output, "its operator is not the standard's"))
        .collect()
}
