//! Models as older exporters wrote them: folded, they answer as before.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use models::backend::{Backend, SessionOptions};
use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use models::onnx::proto::{
    GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use models::onnx::{Graph, Model, tensor};
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::fold::fold;
use protocol::tensor::Tensor;

fn value(name: &str) -> ValueInfoProto {
    let dim =
        |size| Dimension { value: Some(dimension::Value::DimValue(size)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: [1, 3, 4].map(dim).to_vec() };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// Answers before and after folding, and how many nodes are left.
fn check(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> (Vec<String>, usize) {
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let graph = GraphProto {
        name: Some("old".to_owned()),
        node: nodes,
        initializer: weights,
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    let model = Model::new(Graph::new(graph).unwrap(), 12);
    let mut folded = model.clone();
    let found = fold(&mut folded, &backend).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let values: Vec<f32> = (0u8..12).map(|i| f32::from(i) * 0.9 - 5.0).collect();
    let input = Tensor::from_f32("x", vec![1, 3, 4], &values).unwrap();
    let run = |model: &Model| {
        model.write(&path).unwrap();
        let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
        session.run(std::slice::from_ref(&input), &[]).unwrap()[0].to_f32().unwrap()
    };
    assert_eq!(folded.opset(""), Some(13));
    for (a, b) in run(&model).into_iter().zip(run(&folded)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let ops = folded.graph().nodes().map(|(_, node)| node.op_type().to_owned()).collect();
    (ops, found.activations)
}

#[test]
fn a_softmax_over_several_axes_stays_one() {
    // The axis is 1 when absent: all twelve numbers are one distribution.
    check(vec![node("Softmax", &["x"], &["y"])], Vec::new());
    let (ops, _) = check(vec![node("Softmax", &["x"], &["y"]).with_int("axis", 2)], Vec::new());
    assert_eq!(ops, ["Softmax"]);
}

#[test]
fn a_hard_swish_of_four_nodes_becomes_two() {
    let numbers = [("three", 3.0f32), ("zero", 0.0), ("six", 6.0)];
    let weights = numbers.map(|(name, value)| tensor::new(name, &[], &[value])).to_vec();
    let nodes = vec![
        node("Add", &["x", "three"], &["moved"]),
        node("Clip", &["moved", "zero", "six"], &["clipped"]),
        node("Mul", &["x", "clipped"], &["product"]),
        node("Div", &["product", "six"], &["y"]),
    ];
    let (mut ops, activations) = check(nodes, weights);
    ops.sort();
    assert_eq!(
        (ops.as_slice(), activations),
        (&["HardSigmoid".to_owned(), "Mul".to_owned()][..], 1)
    );
}
