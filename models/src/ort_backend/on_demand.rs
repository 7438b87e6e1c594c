//! ONNX Runtime that is not there before somebody needs it: a device without models spares its
//! memory.

use std::path::PathBuf;

use super::OrtBackend;
use crate::backend::{Backend, LoadError, Session, SessionOptions};

/// A backend that opens its library with the first model.
#[derive(Debug, Clone)]
pub struct OnDemand {
    library: PathBuf,
}

impl OnDemand {
    /// For a library that [`find_library`](super::find_library) found.
    pub fn new(library: PathBuf) -> Self {
        Self { library }
    }
}

impl Backend for OnDemand {
    fn load(
        &self,
        onnx: &std::path::Path,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, LoadError> {
        OrtBackend::open(&self.library)?.load(onnx, options) // opened once, then handed out
    }
}
