//! ONNX Runtime that is not there before somebody needs it: a device without models spares its
//! memory.

use std::io;
use std::path::{Path, PathBuf};

use super::{OrtBackend, library_identity, providers};
use crate::backend::{Backend, LoadError, Session, SessionOptions};
use crate::providers::{Provider, Reason};

/// A backend that opens its library with the first model.
#[derive(Debug, Clone)]
pub struct OnDemand {
    library: PathBuf,
    identity: String,
}

impl OnDemand {
    /// For a library that [`find_library`](super::find_library) found.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(library: PathBuf) -> io::Result<Self> {
        let identity = library_identity(&library)?;
        Ok(Self { library, identity })
    }
}

impl Backend for OnDemand {
    fn start(&self) -> Result<(), LoadError> {
        OrtBackend::open(&self.library)?;
        Ok(())
    }

    fn load(&self, onnx: &Path, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        OrtBackend::open(&self.library)?.load(onnx, options) // opened once, then handed out
    }

    fn offers(&self, provider: Provider) -> Result<(), Reason> {
        match OrtBackend::open(&self.library) {
            Ok(_) => providers::offers(provider),
            Err(error) => Err(Reason::DoesNotOpen { message: error.to_string() }),
        }
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}
