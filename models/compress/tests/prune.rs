//! Pruned models on real ONNX Runtime: convolutions with residuals, depthwise chains, and the heads of an attention.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // also in the helpers of tests

use std::path::{Path, PathBuf};

use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::calibrate::random::Random;
use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::{GraphProto, TensorProto, ValueInfoProto};
use models::onnx::{Graph, Model, tensor};
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::fold::fold;
use outrigger_compress::measure::Reference;
use outrigger_compress::prune::{Importance, Options, Pruned, prune};
use protocol::tensor::Tensor;

fn backend() -> OrtBackend {
    OrtBackend::open(&find_library(None).unwrap()).unwrap()
}

fn zoo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/fashion").join(file)
}

/// The share of test images that a pruned variant gets right, and the pruned model.
fn fashion(file: &str, options: &Options) -> (f64, Pruned) {
    let backend = backend();
    let calibration = Dataset::open(&zoo("")).unwrap();
    let test = Dataset::open(&zoo("test.toml")).unwrap();
    let mut model = Model::read(&zoo(file)).unwrap();
    fold(&mut model, &backend).unwrap();
    let mut float = backend.load(&zoo(file), &SessionOptions::default()).unwrap();
    let data = calibration.for_model(float.inputs()).unwrap();
    let items = |item: usize| Ok::<_, CompressError>(data.inputs(item)?);
    let chosen: Vec<usize> = (0..48).collect();
    let pruned = prune(&model, options, (&items, &chosen), &backend, &mut |_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pruned.onnx");
    pruned.model.write(&path).unwrap();
    let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
    let data = test.for_model(float.inputs()).unwrap();
    let items = |item: usize| Ok::<_, CompressError>(data.inputs(item)?);
    let all: Vec<usize> = (0..400).collect();
    let reference = Reference::new(&mut *float, &items, &all, test.labels()).unwrap();
    let quality = reference.compare(&mut *session, &items, &all).unwrap();
    (quality.accuracy.unwrap(), pruned)
}

#[test]
fn a_quarter_of_the_channels_goes_without_training() {
    // A chain of depthwise convolutions: 16,394 parameters can spare little.
    let options = Options { multiple: 4, ..Options::default() };
    let (accuracy, pruned) = fashion("edge.onnx", &options);
    let (channels, kept) = pruned.channels();
    println!("{kept} of {channels}: {accuracy}");
    assert!(kept * 100 <= channels * 78, "{kept} of {channels}");
    let one_shot = Options { importance: Importance::Magnitude, repair: false, ..options };
    let (blunt, _) = fashion("edge.onnx", &one_shot);
    println!("one-shot magnitude: {blunt}");
    assert!(accuracy > 0.80 && accuracy > blunt + 0.1, "{accuracy} beside {blunt}");
}

#[test]
fn channels_that_are_added_go_together() {
    let scores = |model: &Model| {
        // Whoever trains can say which channels matter: here the first of each.
        let weights = model.graph().weights().filter(|weight| weight.dims.len() == 4);
        let fall = |count: i64| (0..count).map(|channel| -(channel as f64)).collect::<Vec<f64>>();
        weights.map(|weight| (weight.name().to_owned(), fall(weight.dims[0]))).collect()
    };
    let mut folded = Model::read(&zoo("edge.onnx")).unwrap();
    fold(&mut folded, &backend()).unwrap();
    let importance = Importance::Given(scores(&folded));
    let options = Options { importance, multiple: 4, ..Options::default() };
    let (accuracy, pruned) = fashion("edge.onnx", &options);
    assert!(accuracy > 0.2, "{accuracy}");
    assert!(pruned.groups.iter().any(|group| group.kept < group.channels), "{:?}", pruned.groups);
    // Three residual blocks: what is added stays as wide as what it is added to.
    let blunt = Options { importance: Importance::Magnitude, repair: false, ..Options::default() };
    let (channels, kept) = fashion("cloud.onnx", &blunt).1.channels();
    assert!(kept < channels);
}

const WIDTH: i64 = 16;
const HEADS: i64 = 4;

/// `x + attention(x)` with four heads of four numbers each; the last head says nothing.
fn attention() -> Model {
    let mut random = Random::new(5);
    let mut weights: Vec<TensorProto> = Vec::new();
    for name in ["wq", "wk", "wv", "wo"] {
        let mut values: Vec<f32> =
            (0..WIDTH * WIDTH).map(|_| random.share() as f32 - 0.5).collect();
        if name == "wv" {
            values.iter_mut().enumerate().filter(|(i, _)| i % 16 >= 12).for_each(|(_, v)| *v = 0.0);
        }
        weights.push(tensor::new(name, &[WIDTH, WIDTH], &values));
    }
    weights.push(tensor::new("split", &[4], &[0i64, 0, HEADS, WIDTH / HEADS]));
    weights.push(tensor::new("join", &[3], &[0i64, 0, WIDTH]));
    let mut nodes = Vec::new();
    for (letter, perm) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
        let [made, cut, turned] = ["m", "c", "t"].map(|step| format!("{letter}{step}"));
        nodes.push(node("MatMul", &["x", &format!("w{letter}")], &[&made]));
        nodes.push(node("Reshape", &[&made, "split"], &[&cut]));
        nodes.push(node("Transpose", &[&cut], &[&turned]).with_ints("perm", &perm));
    }
    nodes.push(node("MatMul", &["qt", "kt"], &["scores"]));
    nodes.push(node("Softmax", &["scores"], &["shares"]).with_int("axis", -1));
    nodes.push(node("MatMul", &["shares", "vt"], &["mixed"]));
    nodes.push(node("Transpose", &["mixed"], &["back"]).with_ints("perm", &[0, 2, 1, 3]));
    nodes.push(node("Reshape", &["back", "join"], &["joined"]));
    nodes.push(node("MatMul", &["joined", "wo"], &["y"]));
    let value = |name: &str| {
        use models::onnx::proto::tensor_shape_proto::{Dimension, dimension};
        use models::onnx::proto::{TensorShapeProto, TypeProto, type_proto};
        let dim = |size| Dimension {
            value: Some(dimension::Value::DimValue(size)),
            ..Dimension::default()
        };
        let shape = TensorShapeProto { dim: [1, 6, WIDTH].map(dim).to_vec() };
        let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
        let kind = TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        };
        ValueInfoProto {
            name: Some(name.to_owned()),
            r#type: Some(kind),
            ..ValueInfoProto::default()
        }
    };
    let graph = GraphProto {
        name: Some("attention".to_owned()),
        node: nodes,
        initializer: weights,
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    Model::new(Graph::new(graph).unwrap(), 17)
}

#[test]
fn heads_of_an_attention_go_whole() {
    let backend = backend();
    let model = attention();
    let items = |item: usize| {
        let mut random = Random::new(item as u64);
        let values: Vec<f32> = (0..6 * WIDTH).map(|_| random.share() as f32 * 4.0 - 2.0).collect();
        Ok::<_, CompressError>(vec![Tensor::from_f32("x", vec![1, 6, WIDTH], &values).unwrap()])
    };
    let chosen: Vec<usize> = (0..40).collect();
    let options = Options { uniform: true, ..Options::default() };
    let pruned = prune(&model, &options, (&items, &chosen), &backend, &mut |_| {}).unwrap();
    let heads = pruned.groups.iter().find(|group| group.made_by.len() == 3).unwrap();
    assert_eq!((heads.channels, heads.kept), (16, 12), "{:?}", pruned.groups);
    let graph = pruned.model.graph();
    assert_eq!(graph.weight("wq").unwrap().dims, [16, 12]);
    assert_eq!(graph.weight("wo").unwrap().dims, [12, 16]);
    let folder = tempfile::tempdir().unwrap();
    let run = |model: &Model, item: usize| {
        let path = folder.path().join("m.onnx");
        model.write(&path).unwrap();
        let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
        session.run(&items(item).unwrap(), &[]).unwrap()[0].to_f32().unwrap()
    };
    // The head that said nothing is the one that went.
    let apart = run(&model, 99).into_iter().zip(run(&pruned.model, 99));
    let apart = apart.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(apart < 1e-2, "{apart}");
}
