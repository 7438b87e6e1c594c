//! Real models, larger than a repository should hold, at work in the real agent.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{RunError, run};
use crate::onnxruntime::{self, LIBRARY_VARIABLE, SetupError};
use crate::programs;

pub(crate) const MODELS_VARIABLE: &str = "OUTRIGGER_BENCH_MODELS";

/// Why this was not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PipelinesError {
    #[error("no folder with models was given")]
    NoModels,
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl PipelinesError {
    /// What the person can do now.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoModels => Some(
                "cargo xtask prove pipelines --models DIR (or OUTRIGGER_BENCH_MODELS=DIR), where DIR holds \
                 efficientnet-lite0.onnx, imagenet-labels.json, minilm-l6-v2-int8.onnx, \
                 minilm-l6-v2-tokenizer.json and silero-vad-16k.onnx, and a folder photos is in it or beside it"
                    .to_owned(),
            ),
            Self::Setup(error) => error.hint(),
            Self::Run(_) => None,
        }
    }
}

pub(super) fn prove(
    models: Option<&Path>,
    speech: Option<&Path>,
    short: bool,
) -> Result<(), PipelinesError> {
    let given =
        models.map(Path::to_owned).or_else(|| env::var_os(MODELS_VARIABLE).map(PathBuf::from));
    let models = given.ok_or(PipelinesError::NoModels)?;
    let library = onnxruntime::bring()?;
    let program = programs::build_for_proof(short, "outrigger-pipelines")?;
    let mut command = Command::new(program);
    command.arg("--models").arg(models).env(LIBRARY_VARIABLE, &library.path);
    if let Some(speech) = speech {
        command.arg("--speech").arg(speech);
    }
    run(&mut command)?;
    println!("proven: photos, sentences and sound at work through the agent");
    Ok(())
}
