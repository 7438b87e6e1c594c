//! ONNX files made here: the parts of `onnx.proto3` that a plain graph needs, and two models with
//! seeded weights whose cost is known. What they say means nothing; how long they take does.

mod cnn;
mod graph;

pub use cnn::efficient_net_lite;
pub use graph::{Graph, Input};

/// A network of three layers, 64 numbers in and 10 out: next to no work, so that what a server adds
/// is what a call costs. Another `seed` is another model.
pub fn perceptron(seed: u64) -> Vec<u8> {
    let mut graph = Graph::new("perceptron", seed, Input { name: "x", shape: &[-1, 64] });
    let first = graph.dense("x", 64, 128);
    let first = graph.node("Relu", &[&first], &[]);
    let second = graph.dense(&first, 128, 128);
    let second = graph.node("Relu", &[&second], &[]);
    let last = graph.dense(&second, 128, 10);
    graph.finish(&last, "y", &[-1, 10])
}
