//! The model zoo on real ONNX Runtime: accuracies, threshold, probes.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use outrigger_models::authoring::Author;
use outrigger_models::bundle::Bundle;
use outrigger_models::confidence::{Top, top_classes};
use outrigger_models::error::RunError;
use outrigger_models::model::{LoadedModel, ModelOptions};
use outrigger_models::ort_backend::{OrtBackend, find_library};
use outrigger_models::worker::Job;
use protocol::id::{Variant, Version};
use protocol::tensor::{DataType, Tensor, TensorMeta};

const ITEM_BYTES: usize = 28 * 28;

struct Fashion {
    edge: LoadedModel,
    cloud: LoadedModel,
    _folder: tempfile::TempDir,
}

/// Both variants, built and loaded once for all tests of this file.
static FASHION: LazyLock<Fashion> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let author = Author::open(&zoo()).unwrap();
    let load = |variant: Variant| {
        let out = folder.path().join(variant.as_str());
        let manifest = author.build(variant, Version::FIRST, &backend, &out).unwrap();
        let bundle = Bundle::open(&out, manifest).unwrap();
        LoadedModel::load(&backend, bundle, &ModelOptions::default()).unwrap()
    };
    Fashion { edge: load(Variant::Edge), cloud: load(Variant::Cloud), _folder: folder }
});

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/fashion")
}

fn read(file: &str) -> Bytes {
    std::fs::read(zoo().join("data").join(file)).unwrap().into()
}

fn pixels(items: i64, data: Bytes) -> Tensor {
    let meta = TensorMeta::new("image", DataType::Uint8, vec![items, 28, 28]).unwrap();
    Tensor::new(meta, data).unwrap()
}

fn ask(model: &LoadedModel, input: Tensor) -> Result<outrigger_models::worker::Answer, RunError> {
    let job = Job { inputs: vec![input], ..Job::default() };
    model.submit(job).unwrap().wait()
}

/// What the model says to each test image, asked one by one.
fn tops(model: &LoadedModel) -> Vec<Top> {
    let images = read("test-images.u8");
    let one = |start| {
        let answer = ask(model, pixels(1, images.slice(start..start + ITEM_BYTES))).unwrap();
        let top = top_classes(&answer.outputs[0]).unwrap()[0];
        assert_eq!(answer.confidence, Some(top.confidence));
        top
    };
    (0..images.len()).step_by(ITEM_BYTES).map(one).collect()
}

#[test]
fn accuracies_and_threshold() {
    let labels = read("test-labels.u8");
    let (edge, cloud) = (tops(&FASHION.edge), tops(&FASHION.cloud));
    let right = |tops: &[Top]| {
        tops.iter().zip(&labels).filter(|(t, label)| t.class == usize::from(**label)).count()
    };
    let calibration = FASHION.edge.manifest().calibration.clone().unwrap();
    let accepted = |top: &Top| top.confidence >= calibration.threshold;
    let hybrid: Vec<Top> =
        edge.iter().zip(&cloud).map(|(e, c)| if accepted(e) { *e } else { *c }).collect();
    let deferred = edge.iter().filter(|top| !accepted(top)).count();
    println!("{calibration:?}");
    let (edge, cloud, hybrid) = (right(&edge), right(&cloud), right(&hybrid));
    println!("of 1000 right: edge {edge}, cloud {cloud}, hybrid {hybrid} deferring {deferred}");
    assert_eq!((edge, cloud), (917, 941));
    assert!(hybrid + 10 >= cloud && deferred <= 250);
    assert_eq!(calibration.samples, 1000);
}

#[test]
fn probes_are_answered_as_measured() {
    for model in [&FASHION.edge, &FASHION.cloud] {
        assert_eq!(model.check_probes().unwrap(), 64);
    }
    assert!(FASHION.cloud.manifest().calibration.is_none());
}

#[test]
fn pixels_png_and_numbers_are_answered_alike() {
    let image = read("test-images.u8").slice(..ITEM_BYTES);
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    let grey = image::ExtendedColorType::L8;
    image::ImageEncoder::write_image(encoder, &image, 28, 28, grey).unwrap();
    let numbers: Vec<f32> = image.iter().map(|p| f32::from(*p) / 255.0).collect();
    let answers = [
        pixels(1, image),
        Tensor::from_byte_strings("image", vec![1], &[png]).unwrap(),
        Tensor::from_f32("image", vec![1, 1, 28, 28], &numbers).unwrap(),
    ]
    .map(|input| ask(&FASHION.edge, input).unwrap());
    assert_eq!(answers[0].label.as_deref(), Some("Ankle boot"));
    assert_eq!(answers[0].outputs, answers[1].outputs);
    assert_eq!(answers[0].outputs, answers[2].outputs);
}

#[test]
fn a_batch_is_as_sure_as_its_least_sure_item() {
    let images = read("test-images.u8");
    let batch = ask(&FASHION.edge, pixels(20, images.slice(..20 * ITEM_BYTES))).unwrap();
    let least = tops(&FASHION.edge)[..20].iter().map(|t| t.confidence).reduce(f32::min);
    assert!((batch.confidence.unwrap() - least.unwrap()).abs() < 1e-5);
    assert_eq!((batch.label, batch.outputs[0].shape()), (None, &[20i64, 10][..]));
}

#[test]
fn wrong_inputs_never_reach_the_model() {
    let flat = Tensor::from_f32("image", vec![1, ITEM_BYTES as i64], &[0.0; ITEM_BYTES]).unwrap();
    let other = Tensor::from_f32("sound", vec![1], &[0.0]).unwrap();
    let cut = Tensor::from_byte_strings("image", vec![1], &[b"\xff\xd8\xff".as_slice()]).unwrap();
    assert!(matches!(ask(&FASHION.edge, flat), Err(RunError::Request(_))));
    assert!(matches!(ask(&FASHION.edge, other), Err(RunError::Request(_))));
    assert!(matches!(ask(&FASHION.edge, cut), Err(RunError::Image { .. })));
    assert_eq!(FASHION.edge.inputs()[0].shape, [-1, 1, 28, 28]);
}
