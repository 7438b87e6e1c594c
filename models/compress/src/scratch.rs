//! A folder for models on their way to ONNX Runtime, which loads files; it goes when it is dropped.

use std::path::PathBuf;

use models::backend::{Backend, Session, SessionOptions};
use models::onnx::Model;

use crate::error::{CompressError, io_error};

/// Longer models have their weights in a file of their own, which ONNX Runtime maps: in the other file they would be in
/// memory three times while it is loaded.
const BESIDE_MIN_BYTES: u64 = 8 << 20;

pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Result<Self, CompressError> {
        let folder = tempfile::Builder::new().prefix("outrigger-").tempdir();
        Ok(Self(folder.map_err(io_error(&std::env::temp_dir()))?))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads a model that is in memory; its files are gone again afterwards.
    pub(crate) fn load(
        &self,
        model: &Model,
        backend: &dyn Backend,
    ) -> Result<Box<dyn Session>, CompressError> {
        let path = self.path("model.onnx");
        let beside = model.size_bytes() > BESIDE_MIN_BYTES;
        if beside { model.write_external(&path) } else { model.write(&path) }?;
        let session = backend.load(&path, &SessionOptions::default());
        // Overwritten by the next, or gone with the folder.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(path.with_file_name("model.onnx.data"));
        Ok(session?)
    }
}
