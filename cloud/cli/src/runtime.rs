//! Which ONNX Runtime a command works with.

use models::ort_backend::{OrtBackend, find_library};
use std::path::PathBuf;

/// The argument of every command that runs models here.
#[derive(clap::Args)]
pub(crate) struct RuntimeArgs {
    /// ONNX Runtime's shared library; found by itself where it is installed.
    #[arg(long, value_name = "LIBRARY")]
    runtime: Option<PathBuf>,
}

impl RuntimeArgs {
    /// Opens it.
    pub(crate) fn open(&self) -> anyhow::Result<OrtBackend> {
        Ok(OrtBackend::open(&find_library(self.runtime.as_deref())?)?)
    }
}
