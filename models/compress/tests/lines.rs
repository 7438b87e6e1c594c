//! What a recogniser reads is what counts, where its blank is known.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use models::backend::{Backend, Session, SessionOptions};
use models::onnx::attribute::node;
use models::onnx::proto::tensor_shape_proto::Dimension;
use models::onnx::proto::{GraphProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use models::onnx::{Graph, Model, tensor};
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::measure::Reference;
use protocol::tensor::Tensor;

/// `x`, of as many sizes, times a factor for each class.
fn model(factors: [f32; 3], rank: usize) -> Model {
    let shape = TensorShapeProto { dim: vec![Dimension::default(); rank] };
    let kind = type_proto::Tensor { elem_type: Some(tensor::element::FLOAT), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..Default::default() };
    let value = |name: &str| ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(kind.clone()),
        ..Default::default()
    };
    let graph = GraphProto {
        name: Some("reader".to_owned()),
        node: vec![node("Mul", &["x", "factors"], &["y"])],
        initializer: vec![tensor::new("factors", &[3], &factors)],
        input: vec![value("x")],
        output: vec![value("y")],
        ..Default::default()
    };
    Model::new(Graph::new(graph).unwrap(), 13)
}

fn session(factors: [f32; 3], rank: usize) -> Box<dyn Session> {
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model(factors, rank).write(&path).unwrap();
    backend.load(&path, &SessionOptions::default()).unwrap()
}

/// A line whose tokens are of these classes.
fn line(shape: &[i64], path: &[usize]) -> Result<Vec<Tensor>, CompressError> {
    let scores =
        path.iter().flat_map(|class| (0..3).map(move |c| if c == *class { 0.6 } else { 0.2 }));
    Ok(vec![Tensor::from_f32("x", shape.to_vec(), &scores.collect::<Vec<f32>>()).unwrap()])
}

#[test]
fn a_line_is_lost_where_another_one_is_read() {
    // The second says "11" with a blank between, so a reader that takes blanks for 2 reads it otherwise.
    let paths = [vec![1, 1, 1, 2], vec![1, 0, 1, 1]];
    let items = |item: usize| line(&[1, 4, 3], &paths[item]);
    let mut float = session([1.0, 1.0, 1.0], 3);
    let reference = Reference::reading(&mut *float, &items, &[0, 1], (None, Some(0))).unwrap();
    let compare = |factors| reference.compare(&mut *session(factors, 3), &items, &[0, 1]).unwrap();
    let same = compare([1.0, 1.0, 1.0]);
    assert_eq!((same.lines, same.drop_from(&reference.own())), (Some(1.0), 0.0));
    // Far in numbers, the same in letters.
    let far = compare([30.0, 20.0, 25.0]);
    assert_eq!((far.lines, far.lines_lost), (Some(1.0), Some(0.0)));
    // The float model itself was not sure of the line that is lost: little is.
    let other = compare([0.1, 1.0, 1.5]);
    let lost = other.drop_from(&reference.own());
    assert!(other.lines == Some(0.5) && lost > 0.0 && lost < 0.2, "{other:?}");
    assert!(other.surprise > same.surprise, "{other:?}");
    assert_eq!(reference.own().lines, Some(1.0));
}

#[test]
fn what_reads_no_lines_is_refused_with_a_hint() {
    let items = |_: usize| line(&[1, 3], &[1]);
    let refused = Reference::reading(&mut *session([1.0; 3], 2), &items, &[0], (None, Some(0)));
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("leave out the blank"), "{text}");
}
