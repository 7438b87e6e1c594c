//! Whether neighbours in a batch change an answer, found by the probes of real ONNX models.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use outrigger_models::probing::Batching;

mod support;
use support::onnx::{self, FLOAT};
use support::{Shop, bench_models};

const RECIPE: &str = r#"
name = "batch"
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-4
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
"#;

fn shop(nodes: &[Vec<u8>], output: &[i64]) -> Shop {
    let shop = Shop::new(RECIPE);
    let inputs = [onnx::value("x", FLOAT, &[-1, 2])];
    shop.write("model.onnx", onnx::model(&inputs, nodes, &[onnx::value("y", FLOAT, output)]));
    let items: Vec<u8> = (0..12u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    shop.write("x.f32", items);
    shop
}

fn found(nodes: &[Vec<u8>], output: &[i64]) -> Option<Batching> {
    shop(nodes, output).load().unwrap().check_batching().unwrap()
}

#[test]
fn what_answers_each_item_alone_is_invariant() {
    let batching = found(&[onnx::node("Neg", &["x"], "y", &[])], &[-1, 2]).unwrap();
    let expected = Batching { compared: 4, invariant: true, worst_difference: 0.0, failure: None };
    assert_eq!(batching, expected);
}

#[test]
fn a_mean_over_the_batch_is_a_surprise() {
    let nodes = [
        onnx::node("ReduceMean", &["x"], "mean", &[("axes", 0)]),
        onnx::node("Sub", &["x", "mean"], "y", &[]),
    ];
    let batching = found(&nodes, &[-1, 2]).unwrap();
    assert!(!batching.invariant && batching.worst_difference > 0.5, "{batching:?}");
    assert_eq!(batching.failure, None);
}

#[test]
fn a_row_that_is_lost_is_a_surprise() {
    // Equal rows become one, although each item should have its own.
    let shop = shop(&[onnx::node("Unique", &["x"], "y", &[("axis", 0)])], &[-1, 2]);
    shop.write("x.f32", [0; 6 * 8]);
    let batching = shop.load().unwrap().check_batching().unwrap().unwrap();
    assert!(!batching.invariant && batching.worst_difference == f64::MAX, "{batching:?}");
}

#[test]
fn a_model_without_a_batch_has_nothing_to_find() {
    let nodes = [onnx::node("ReduceSum", &["x"], "y", &[("axes", 0), ("keepdims", 0)])];
    assert_eq!(found(&nodes, &[2]), None);
}

#[test]
fn dynamic_quantization_is_found_out() {
    let quantized = ["q", "scale", "zero"];
    let nodes = [
        onnx::node_of_many("DynamicQuantizeLinear", &["x"], &quantized, &[]),
        onnx::node("DequantizeLinear", &quantized, "y", &[]),
    ];
    let batching = found(&nodes, &[-1, 2]).unwrap();
    assert!(!batching.invariant && batching.worst_difference < 0.1, "{batching:?}");
}

/// A row for each token is padded to the longest text of its batch; an embedding is not.
#[test]
fn texts_are_compared_by_what_has_one_row_each() {
    let Some(models) = bench_models() else { return };
    let shop = Shop::new(
        r#"
name = "sentences"
[[preprocess]]
input = "text"
targets = { ids = "input_ids", mask = "attention_mask", types = "token_type_ids" }
steps = [{ step = "tokenize", file = "tokenizer.json", max_tokens = 128 }]
[[postprocess]]
output = "embedding"
from = "last_hidden_state"
steps = [{ step = "mean-pool", mask = "attention_mask" }, { step = "l2-normalize" }]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-3
inputs = [{ input = "text", lines = "lines.txt" }]
"#,
    );
    shop.copy(&models.join("minilm-l6-v2.onnx"), "model.onnx");
    shop.copy(&models.join("minilm-l6-v2-tokenizer.json"), "tokenizer.json");
    shop.write("lines.txt", "A light float\nStock markets fell sharply on Tuesday.\nx\nGröße");
    let batching = shop.load().unwrap().check_batching().unwrap().unwrap();
    assert!(batching.invariant && batching.compared == 4, "{batching:?}");
}
