//! What the toolchain asks of ONNX Runtime beside answers: what it makes of a model, and what it infers.

use std::path::Path;

use ort::session::builder::GraphOptimizationLevel;
use protocol::manifest::TensorSpec;

use super::{OrtBackend, value};
use crate::backend::{LoadError, SessionOptions};

impl OrtBackend {
    /// Loads a model and writes what ONNX Runtime makes of it: what it fused, before it chooses memory layouts
    /// for this very machine.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn write_optimised(&self, onnx: &Path, to: &Path) -> Result<(), LoadError> {
        let build = || {
            self.builder(&SessionOptions::default())?
                .with_optimization_level(GraphOptimizationLevel::Level2)?
                .with_optimized_model_path(to)?
                .commit_from_file(onnx)
        };
        let malformed =
            |e: ort::Error| LoadError::Malformed { path: onnx.to_owned(), message: e.to_string() };
        build().map(drop).map_err(malformed)
    }

    /// What a model's outputs are, as ONNX Runtime infers them; those that are no tensors, or of a type that the
    /// protocol does not carry, are left out.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn outputs_of(&self, onnx: &Path) -> Result<Vec<TensorSpec>, LoadError> {
        let build = || {
            self.builder(&SessionOptions::default())?
                .with_optimization_level(GraphOptimizationLevel::Disable)?
                .commit_from_file(onnx)
        };
        let malformed =
            |e: ort::Error| LoadError::Malformed { path: onnx.to_owned(), message: e.to_string() };
        let session = build().map_err(malformed)?;
        Ok(session.outputs().iter().filter_map(|outlet| value::spec(outlet, onnx).ok()).collect())
    }
}
