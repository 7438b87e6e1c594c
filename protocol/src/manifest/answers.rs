//! What surrounds a run of the model: inputs that never change, state that is fed back, and how its
//! outputs become what an application wants.

use serde::{Deserialize, Serialize};

/// A classifier's output `[n,k]` `BYTES`: the labels of the most probable classes, most probable
/// first. An output of the model with this name takes its place.
pub const LABEL_OUTPUT: &str = "label";
/// A classifier's output `[n,k]` `FP32`: the probabilities beside [`LABEL_OUTPUT`].
pub const PROBABILITY_OUTPUT: &str = "probability";

/// An input that never changes, such as a sample rate. A request may still give its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The model's input, of any numeric datatype.
    pub input: String,
    /// The dimensions; a single number without any when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<i64>,
    /// The values, row-major.
    pub values: Vec<f64>,
}

/// An output that is the same model's input in the next run: kept across the frames of a request
/// and the pieces of a stream. It begins as zeros. Applications see neither, unless they ask for
/// the output by name or send the input themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateLoop {
    /// The model's output.
    pub output: String,
    /// The model's input.
    pub input: String,
    /// The dimensions of both, for one stream.
    pub shape: Vec<i64>,
}

/// An output that is computed from one of the model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postprocess {
    /// Its name.
    pub output: String,
    /// The model's output, of any numeric datatype; the result is `FP32`.
    pub from: String,
    /// The steps, in order.
    pub steps: Vec<PostStep>,
}

/// One step of post-processing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PostStep {
    /// `[n,tokens,d]` to `[n,d]`: the mean over the tokens, `sum(x * mask) / max(sum(mask), 1e-9)`.
    MeanPool {
        /// The model's input `[n,tokens]` that says which tokens count; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mask: Option<String>,
    },
    /// The last axis to length 1: `x / max(sqrt(sum(x^2)), 1e-12)`.
    L2Normalize,
    /// The last axis to probabilities: `exp(x) / sum(exp(x))`.
    Softmax,
}

/// How a classifier's answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The output that holds the logits: `[n, classes]`, or a recogniser's `[n, tokens, classes]`.
    pub logits: String,
    /// The file with the labels, a JSON array in class order. Without it, classes are labelled with
    /// their numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// How many classes [`LABEL_OUTPUT`] and [`PROBABILITY_OUTPUT`] tell; 1 when absent, and never
    /// more than there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Of a recogniser: the class that stands for no token, as in models that were trained with CTC;
    /// repeated classes are one token then. Without it each token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blank: Option<u32>,
}
