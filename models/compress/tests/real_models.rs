//! Pretrained models that are too large for the project: what folds, what fuses, and how long one build takes.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use models::onnx::Model;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::calibrate::{Seen, calibrate};
use outrigger_compress::fold::{Folded, fold, verify};
use outrigger_compress::fused::fused;
use outrigger_compress::quantize::{Quantized, Recipe, Scheme, plan, quantize};
use protocol::tensor::Tensor;

fn backend() -> OrtBackend {
    OrtBackend::open(&find_library(None).unwrap()).unwrap()
}

/// A large model, if this machine has it.
fn large(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("OUTRIGGER_BENCH_MODELS").map(PathBuf::from);
    let path = folder.map(|folder| folder.join(file)).filter(|path| path.is_file());
    if path.is_none() {
        println!("skipped: OUTRIGGER_BENCH_MODELS names no folder with {file}");
    }
    path
}

/// Pictures of soft waves: smooth as photographs are, and the same each time.
fn picture(item: usize, side: i64) -> Result<Vec<Tensor>, CompressError> {
    let values = (0..3 * side * side).map(|index| {
        let (row, column) = (index / side, index % side);
        let (x, y) = (row as f32 * 0.05, column as f32 * 0.03);
        (x + item as f32).sin() * (y * (1.0 + item as f32 * 0.1)).cos()
    });
    let values: Vec<f32> = values.collect();
    Ok(vec![Tensor::from_f32("image", vec![1, 3, side, side], &values).unwrap()])
}

fn count(built: &Quantized, backend: &OrtBackend) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx");
    built.model.write(&path).unwrap();
    let fused = fused(&path, &built.wanted, backend).unwrap();
    println!("{} bytes, fused {:?}", path.metadata().unwrap().len(), fused.by_op);
    fused.total()
}

fn check_efficientnet(file: &str, side: i64, paddings: usize, nodes: usize) {
    let Some(path) = large(file) else { return };
    let backend = backend();
    let begin = Instant::now();
    let before = Model::read(&path).unwrap();
    let mut model = before.clone();
    let folded: Folded = fold(&mut model, &backend).unwrap();
    assert_eq!(folded.paddings, paddings);
    let values = plan(&model, &BTreeSet::new(), None).measured();
    let items = |item: usize| picture(item, side);
    let chosen: Vec<usize> = (0..120).collect();
    let seen = calibrate(&model, &values, (&items, &chosen), &backend).unwrap();
    let built = quantize(&model, &seen, &Recipe::default()).unwrap();
    println!("{file}: one static build with 120 items in {:.1} s", begin.elapsed().as_secs_f64());
    verify(&before, &model, &picture(0, side).unwrap(), &backend).unwrap();
    assert_eq!(count(&built, &backend), (nodes, nodes));
}

#[test]
fn every_node_of_efficientnet_fuses() {
    check_efficientnet("efficientnet-lite0.onnx", 224, 17, 60);
    check_efficientnet("efficientnet-lite2.onnx", 260, 22, 80);
}

#[test]
fn every_product_of_a_transformer_fuses_and_its_tables_shrink() {
    let Some(path) = large("minilm-l6-v2.onnx") else { return };
    let backend = backend();
    let mut model = Model::read(&path).unwrap();
    fold(&mut model, &backend).unwrap();
    let recipe = Recipe { scheme: Scheme::Dynamic, ..Recipe::default() };
    let built = quantize(&model, &Seen::new(), &recipe).unwrap();
    assert_eq!(count(&built, &backend), (36, 36));
    assert!(built.model.to_bytes().unwrap().len() < 25_000_000);
}
