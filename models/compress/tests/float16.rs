//! Half floats on real ONNX Runtime: what they cannot hold stays as it was.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::BTreeSet;

use models::backend::{Backend, SessionOptions};
use models::onnx::attribute::node;
use models::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use models::onnx::proto::{
    GraphProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use models::onnx::{Graph, Model, tensor};
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::float16::convert;
use protocol::tensor::Tensor;

fn value(name: &str) -> ValueInfoProto {
    let dim = Dimension { value: Some(dimension::Value::DimValue(4)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: vec![dim] };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// `relu(x * 100000) / 100000`, and the same with `relu(x)` beside it.
fn model() -> Model {
    let weight = |name: &str, value: f32| -> TensorProto { tensor::new(name, &[1], &[value]) };
    let graph = GraphProto {
        name: Some("large".to_owned()),
        node: vec![
            node("Mul", &["x", "large"], &["scaled"]),
            node("Relu", &["scaled"], &["above"]),
            node("Div", &["above", "large"], &["back"]),
            node("Relu", &["x"], &["small"]),
            node("Add", &["small", "back"], &["twice"]),
            node("Sigmoid", &["twice"], &["y"]),
        ],
        initializer: vec![weight("large", 100_000.0)],
        input: vec![value("x")],
        output: vec![value("y"), value("small")],
        ..GraphProto::default()
    };
    Model::new(Graph::new(graph).unwrap(), 17)
}

fn check(named: &[&str], in_float: &[&str]) {
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let input = Tensor::from_f32("x", vec![4], &[1.5, -2.0, 0.25, 7.0]).unwrap();
    let items = |_: usize| Ok::<_, CompressError>(vec![input.clone()]);
    let named: BTreeSet<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let halved = convert(&model(), &named, (&items, &[0]), &backend).unwrap();
    let left: Vec<&str> = halved.left.iter().map(|left| left.output.as_str()).collect();
    assert_eq!(left, in_float);
    assert_eq!(halved.nodes, 6 - in_float.len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let run = |model: &Model| {
        model.write(&path).unwrap();
        let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
        let outputs = session.run(std::slice::from_ref(&input), &[]).unwrap();
        outputs.iter().flat_map(|output| output.to_f32().unwrap()).collect::<Vec<f32>>()
    };
    for (a, b) in run(&model()).into_iter().zip(run(&halved.model)) {
        assert!((a - b).abs() < 5e-3, "{a} {b}");
    }
}

#[test]
fn numbers_beyond_half_floats_stay_whole() {
    check(&[], &["scaled", "above", "back"]);
    check(&["twice", "small"], &["scaled", "above", "back", "small", "twice"]);
}
