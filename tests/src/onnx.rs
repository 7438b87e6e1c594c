//! ONNX files made here: the parts of `onnx.proto3` that a plain graph needs, and two models with
//! seeded weights whose cost is known. What they say means nothing; how long they take does.

mod cnn;
mod graph;

pub use cnn::efficient_net_lite;
pub use graph::{Graph, Input};

use models::backend::{Backend, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use protocol::manifest::TensorSpec;
use protocol::tensor::{DataType, Tensor};
use std::path::Path;

/// A network of three layers, 64 numbers in and 10 out: next to no work, so that what a server adds
/// is what a call costs. Another `seed` is another model.
pub fn perceptron(seed: u64) -> Vec<u8> {
    wide_perceptron(seed, 128)
}

/// The same with `width` numbers in between, and so `4 * width * width` bytes of weights.
pub fn wide_perceptron(seed: u64, width: i64) -> Vec<u8> {
    let mut graph = Graph::new("perceptron", seed, Input { name: "x", shape: &[-1, 64] });
    let first = graph.dense("x", 64, width);
    let first = graph.node("Relu", &[&first], &[]);
    let second = graph.dense(&first, width, width);
    let second = graph.node("Relu", &[&second], &[]);
    let last = graph.dense(&second, width, 10);
    graph.finish(&last, "y", &[-1, 10])
}

/// What perceptrons take and give.
pub fn perceptron_specs() -> (TensorSpec, TensorSpec) {
    let spec = |name: &str, width| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1, width],
    };
    (spec("x", 64), spec("y", 10))
}

/// Inputs for a perceptron and what it answers, each of one item.
///
/// # Errors
/// It does not run.
pub fn perceptron_probes(folder: &Path, onnx: &[u8]) -> anyhow::Result<Vec<(Tensor, Tensor)>> {
    let file = folder.join("probed.onnx");
    std::fs::write(&file, onnx)?;
    let backend = OrtBackend::open(&find_library(None)?)?;
    let mut session = backend.load(&file, &SessionOptions::default())?;
    let probe = |seed: usize| {
        let values: Vec<f32> = (0..64).map(|at| ((seed * 64 + at) as f32).sin()).collect();
        let input = Tensor::from_f32("x", vec![1, 64], &values)?;
        let output = session.run(std::slice::from_ref(&input), &[])?.remove(0);
        anyhow::Ok((input, output))
    };
    (0..PROBES).map(probe).collect()
}

const PROBES: usize = 8;
