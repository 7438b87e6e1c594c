//! A folder for models on their way to ONNX Runtime, which loads files; it goes when it is dropped.

use std::path::PathBuf;

use models::backend::{Backend, Session, SessionOptions};
use models::onnx::Model;

use crate::error::{CompressError, io_error};

pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Result<Self, CompressError> {
        let folder = tempfile::Builder::new().prefix("outrigger-").tempdir();
        Ok(Self(folder.map_err(io_error(&std::env::temp_dir()))?))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads a model that is in memory; its file is gone again afterwards.
    pub(crate) fn load(
        &self,
        model: &Model,
        backend: &dyn Backend,
    ) -> Result<Box<dyn Session>, CompressError> {
        let path = self.path("model.onnx");
        model.write(&path)?;
        let session = backend.load(&path, &SessionOptions::default());
        let _ = std::fs::remove_file(&path); // overwritten by the next, or gone with the folder
        Ok(session?)
    }
}
