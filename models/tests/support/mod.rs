//! Authoring folders made in a test: files, a recipe, the bundle that comes of it, its model.

#![allow(clippy::unwrap_used, dead_code)] // helpers of tests; no test file uses all

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_models::authoring::{Author, BuildError};
use outrigger_models::bundle::Bundle;
use outrigger_models::error::RunError;
use outrigger_models::model::{LoadedModel, ModelOptions};
use outrigger_models::ort_backend::{OrtBackend, find_library};
use outrigger_models::worker::{Answer, Job};
use protocol::id::{Variant, Version};
use protocol::tensor::Tensor;

pub(crate) mod onnx;
pub(crate) mod speech;

/// An authoring folder.
pub(crate) struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) fn new(recipe: &str) -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        shop.write("model.toml", recipe);
        shop
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn copy(&self, from: &Path, file: &str) {
        fs::copy(from, self.folder.path().join(file)).unwrap();
    }

    /// The bundle of the edge variant, made, opened, loaded and probed.
    pub(crate) fn load(&self) -> Result<LoadedModel, BuildError> {
        let backend = backend();
        let out = self.folder.path().join("out");
        let author = Author::open(self.folder.path())?;
        let manifest = author.build(Variant::Edge, Version::FIRST, &backend, &out)?;
        let bundle = Bundle::open(&out, manifest).unwrap();
        let model = LoadedModel::load(&backend, bundle, &ModelOptions::default()).unwrap();
        model.check_probes().unwrap();
        Ok(model)
    }
}

pub(crate) fn backend() -> OrtBackend {
    OrtBackend::open(&find_library(None).unwrap()).unwrap()
}

/// Asks for some outputs; for the default ones with none.
pub(crate) fn ask(
    model: &LoadedModel,
    input: Tensor,
    outputs: &[&str],
) -> Result<Answer, RunError> {
    let outputs = outputs.iter().map(|o| (*o).to_owned()).collect();
    model.submit(Job { inputs: vec![input], outputs, ..Job::default() }).unwrap().wait()
}

pub(crate) fn names(answer: &Answer) -> Vec<&str> {
    answer.outputs.iter().map(Tensor::name).collect()
}

/// `BYTES` `[n]`.
pub(crate) fn bytes(name: &str, items: &[impl AsRef<[u8]>]) -> Tensor {
    Tensor::from_byte_strings(name, vec![items.len() as i64], items).unwrap()
}

/// The texts of a `BYTES` tensor.
pub(crate) fn texts(tensor: &Tensor) -> Vec<String> {
    tensor.byte_elements().map(|b| String::from_utf8(b.to_vec()).unwrap()).collect()
}

/// The folder with models that are too large for the project, if this machine has them.
pub(crate) fn bench_models() -> Option<PathBuf> {
    let folder = std::env::var_os("OUTRIGGER_BENCH_MODELS").map(PathBuf::from);
    let there = folder.filter(|folder| folder.is_dir());
    if there.is_none() {
        println!("skipped: OUTRIGGER_BENCH_MODELS names no folder with the large models");
    }
    there
}

/// A mono WAV file of 16 bits.
pub(crate) fn wav(rate_hz: u32, samples: &[f32]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
    for sample in samples {
        #[allow(clippy::cast_possible_truncation)] // clamped
        writer.write_sample((sample * 32_767.0).clamp(-32_768.0, 32_767.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
    file.into_inner()
}
