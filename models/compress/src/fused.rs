//! What ONNX Runtime fused: read back from the graph that it made of a model.
//!
//! A quantized node that is not fused runs in float, with conversions around it: slower than before. So the count
//! predicts the speed, and tells a wrong recipe from a slow processor.

use std::collections::BTreeMap;
use std::path::Path;

use models::onnx::Model;
use models::ort_backend::OrtBackend;
use serde::{Deserialize, Serialize};

use crate::error::CompressError;
use crate::quantize::rules::rule;
use crate::scratch::Scratch;

/// How many of the wanted nodes were fused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fused {
    /// By operator of the float model: fused, wanted.
    pub by_op: BTreeMap<String, (usize, usize)>,
}

impl Fused {
    /// Fused and wanted over all operators.
    pub fn total(&self) -> (usize, usize) {
        self.by_op.values().fold((0, 0), |(f, w), (fused, wanted)| (f + fused, w + wanted))
    }
}

/// Counts for a model in a file. `wanted` has the operator of each node that should be fused.
///
/// # Errors
/// [`CompressError`] when ONNX Runtime refuses the model.
pub fn fused(onnx: &Path, wanted: &[String], backend: &OrtBackend) -> Result<Fused, CompressError> {
    let scratch = Scratch::new()?;
    let optimised = scratch.path("optimised.onnx");
    backend.write_optimised(onnx, &optimised)?;
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for (_, node) in Model::read(&optimised)?.graph().nodes() {
        *made.entry(node.op_type().to_owned()).or_default() += 1;
    }
    let mut by_op: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for op in wanted {
        by_op.entry(op.clone()).or_default().1 += 1;
    }
    for (op, (fused, wanted)) in &mut by_op {
        for name in rule(op).map_or(&[][..], |rule| rule.fused) {
            // Two operators may become the same one: each node is counted once.
            let left = made.entry((*name).to_owned()).or_default();
            let taken = (*left).min(*wanted - *fused);
            *fused += taken;
            *left -= taken;
        }
    }
    Ok(Fused { by_op })
}
