//! ONNX files: nothing is lost, nothing hostile is believed, and edits keep the graph whole.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::path::{Path, PathBuf};

use bytes::Bytes;
use outrigger_models::onnx::attribute::{Attributes, node};
use outrigger_models::onnx::proto::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use outrigger_models::onnx::{Graph, Model, OnnxError, tensor};
use prost::Message;

fn zoo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/fashion").join(file)
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}

/// x -> Relu -> a -> Identity -> b -> Relu -> y.
fn chain() -> Graph {
    Graph::new(GraphProto {
        input: vec![value("x")],
        output: vec![value("y")],
        node: vec![
            node("Relu", &["x"], &["a"]),
            node("Identity", &["a"], &["b"]),
            node("Relu", &["b"], &["y"]),
        ],
        ..GraphProto::default()
    })
    .unwrap()
}

fn ops(graph: &Graph) -> Vec<String> {
    let nodes = graph.to_proto().unwrap().node;
    nodes.iter().map(|node| format!("{}({})", node.op_type(), node.input.join(","))).collect()
}

#[test]
fn a_file_that_was_only_read_is_written_byte_for_byte() {
    for file in ["edge.onnx", "cloud.onnx"] {
        let bytes = std::fs::read(zoo(file)).unwrap();
        let again = Model::read(&zoo(file)).unwrap().to_bytes().unwrap();
        assert!(again == bytes, "{file}");
    }
}

#[test]
fn large_models_are_written_byte_for_byte() {
    let Some(folder) = std::env::var_os("OUTRIGGER_BENCH_MODELS").map(PathBuf::from) else {
        println!("skipped: OUTRIGGER_BENCH_MODELS names no folder with the large models");
        return;
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let model = Model::read(&path).unwrap();
            assert!(model.to_bytes().unwrap() == std::fs::read(&path).unwrap(), "{path:?}");
        }
    }
}

/// A field 99 with one byte.
const UNKNOWN: [u8; 4] = [0x9A, 0x06, 0x01, 0x2A];

#[test]
fn unknown_fields_of_model_and_graph_survive() {
    let graph = chain().to_proto().unwrap().encode_to_vec();
    let graph = [graph, UNKNOWN.to_vec()].concat();
    let mut bytes = vec![0x3A, u8::try_from(graph.len()).unwrap()];
    bytes.extend(graph);
    bytes.extend(UNKNOWN);
    let once = Model::from_bytes(bytes.into()).unwrap().to_bytes().unwrap();
    assert_eq!(once.windows(4).filter(|window| *window == UNKNOWN).count(), 2);
    let twice = Model::from_bytes(once.clone()).unwrap().to_bytes().unwrap();
    assert_eq!(once, twice);
}

#[test]
fn an_unknown_field_of_a_node_is_refused_by_name() {
    let node = [node("Relu", &["x"], &["y"]).encode_to_vec(), UNKNOWN.to_vec()].concat();
    let graph = [vec![0x0A, u8::try_from(node.len()).unwrap()], node].concat();
    let model = [vec![0x3A, u8::try_from(graph.len()).unwrap()], graph].concat();
    let error = Model::from_bytes(model.into()).unwrap_err();
    assert!(
        matches!(error, OnnxError::UnknownField { message: "NodeProto", number: 99 }),
        "{error}"
    );
}

#[test]
fn truncated_files_are_refused_and_never_panic() {
    let bytes = Bytes::from(std::fs::read(zoo("edge.onnx")).unwrap());
    for end in (0..bytes.len()).step_by(997).chain(bytes.len() - 40..bytes.len()) {
        // Protobuf has no end mark: a cut between two fields is a model with less in it.
        if let Ok(model) = Model::from_bytes(bytes.slice(..end)) {
            assert!(model.to_bytes().unwrap().len() <= end);
        }
    }
    for hostile in [&b""[..], b"not a model", &[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0x3B, 0x3C]]
    {
        assert!(Model::from_bytes(Bytes::from_static(hostile)).is_err());
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let bytes = std::fs::read(zoo("edge.onnx")).unwrap();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..2000 {
        let mut broken = bytes.clone();
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = usize::try_from(random % (bytes.len() as u64)).unwrap();
            broken[at] = random.to_le_bytes()[7];
        }
        if let Ok(mut model) = Model::from_bytes(broken.into()) {
            model.graph_mut().remove_dead();
            let _ = model.raise_to_13();
            model.to_bytes().unwrap();
        }
    }
}

#[test]
fn depth_and_counts_are_bounded() {
    let mut bytes = Vec::new();
    for _ in 0..200 {
        // sequence of sequence of ...: field 4 of TypeProto holds field 1, a TypeProto
        let mut inner = Vec::new();
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut inner);
        prost::encoding::encode_varint(bytes.len() as u64, &mut inner);
        inner.extend(&bytes);
        bytes.clear();
        prost::encoding::encode_key(4, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
    }
    let wrap = |field: u32, inner: &[u8]| {
        let mut out = Vec::new();
        prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        Bytes::from(out)
    };
    let deep = wrap(7, &wrap(11, &wrap(2, &bytes)));
    assert!(matches!(Model::from_bytes(deep).unwrap_err(), OnnxError::TooDeep));
    let many = wrap(7, &[0x0A, 0x00].repeat((1 << 20) + 1));
    assert!(matches!(Model::from_bytes(many).unwrap_err(), OnnxError::TooMany { .. }));
}

#[test]
fn cycles_and_double_values_are_refused() {
    let graph = |nodes| GraphProto { node: nodes, ..GraphProto::default() };
    let cyclic = graph(vec![node("Relu", &["b"], &["a"]), node("Relu", &["a"], &["b"])]);
    assert!(matches!(Graph::new(cyclic).unwrap_err(), OnnxError::Cycle(_)));
    let twice = graph(vec![node("Relu", &["x"], &["a"]), node("Relu", &["x"], &["a"])]);
    assert!(matches!(Graph::new(twice).unwrap_err(), OnnxError::MadeTwice(name) if name == "a"));
}

#[test]
fn a_long_chain_needs_no_stack() {
    let name = |index: usize| format!("v{index}");
    let nodes = (0..200_000).rev().map(|i| node("Relu", &[&name(i)], &[&name(i + 1)])).collect();
    let graph = Graph::new(GraphProto { node: nodes, ..GraphProto::default() }).unwrap();
    assert_eq!(graph.order().unwrap().len(), 200_000);
}

#[test]
fn edits_keep_the_index() {
    let mut graph = chain();
    assert_eq!(graph.chains(&["Relu", "Identity", "Relu"]).len(), 1);
    graph.reroute("b", "a");
    assert_eq!(graph.remove_dead(), 1);
    assert_eq!(ops(&graph), ["Relu(x)", "Relu(a)"]);
    graph.insert_after("a", [node("Clip", &["a"], &["c"])], "c").unwrap();
    assert_eq!(ops(&graph), ["Relu(x)", "Clip(a)", "Relu(c)"]);
    graph.rename("c", "d").unwrap();
    assert_eq!(ops(&graph), ["Relu(x)", "Clip(a)", "Relu(d)"]);
    let last = graph.sole_reader("d").unwrap();
    graph.insert_before(last, 0, node("Abs", &["d"], &["e"]), "e").unwrap();
    assert_eq!(ops(&graph), ["Relu(x)", "Clip(a)", "Abs(d)", "Relu(e)"]);
    assert!(matches!(graph.rename("e", "x"), Err(OnnxError::MadeTwice(_))));
    assert_eq!(graph.maker("y"), Some(last));
    assert!(graph.sole_reader("y").is_none());
}

#[test]
fn what_a_subgraph_takes_from_outside_counts_as_read() {
    let inner = GraphProto {
        node: vec![node("Relu", &["b"], &["inner"])],
        output: vec![value("inner")],
        ..GraphProto::default()
    };
    let mut branch = node("If", &["x"], &["z"]);
    branch.set(outrigger_models::onnx::proto::AttributeProto {
        name: Some("then_branch".to_owned()),
        g: Some(inner),
        ..Default::default()
    });
    let mut graph = chain();
    graph.insert(branch).unwrap();
    graph.add_output("z");
    assert_eq!(graph.readers("b").count(), 2);
    graph.reroute("b", "a");
    assert_eq!(graph.remove_dead(), 1);
    let proto = graph.to_proto().unwrap();
    let branch = proto.node.iter().find(|node| node.op_type() == "If").unwrap();
    assert_eq!(branch.attribute[0].g.as_ref().unwrap().node[0].input, ["a"]);
}

fn external(location: &str, length: &str) -> Bytes {
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let weights = TensorProto {
        name: Some("w".to_owned()),
        dims: vec![4],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", location), entry("length", length)],
        ..TensorProto::default()
    };
    let graph = GraphProto { initializer: vec![weights], ..GraphProto::default() };
    ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec().into()
}

#[test]
fn external_weights_come_only_from_plain_files_inside_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(outer.path().join("secret"), [0; 16]).unwrap();
    std::fs::write(folder.join("weights"), [0; 16]).unwrap();
    std::fs::hard_link(outer.path().join("secret"), folder.join("hard")).unwrap();
    std::os::unix::fs::symlink("../secret", folder.join("soft")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
    let read = |location: &str, length: &str| {
        let path = folder.join("model.onnx");
        std::fs::write(&path, external(location, length)).unwrap();
        Model::read(&path).map(|model| model.graph().weight("w").unwrap().raw_data().len())
    };
    assert_eq!(read("weights", "16").unwrap(), 16);
    assert_eq!(read("./weights", "16").unwrap(), 16);
    let absolute = outer.path().join("secret");
    for outside in
        ["../secret", "hard", "soft", "up/secret", "", "a\\b", absolute.to_str().unwrap()]
    {
        let error = read(outside, "16").unwrap_err();
        assert!(matches!(error, OnnxError::Outside { .. }), "{outside}: {error}");
    }
    assert!(matches!(read("weights", "17").unwrap_err(), OnnxError::External { .. }));
    assert!(matches!(read("weights", "8").unwrap_err(), OnnxError::External { .. }));
    assert!(matches!(read("absent", "16").unwrap_err(), OnnxError::Io { .. }));
}

#[test]
fn weights_beside_the_file_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edge.onnx");
    let model = Model::read(&zoo("edge.onnx")).unwrap();
    model.write_external(&path).unwrap();
    assert!(path.metadata().unwrap().len() < 20_000);
    let again = Model::read(&path).unwrap();
    assert!(again.to_bytes().unwrap() == model.to_bytes().unwrap());
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "a temporary file was left behind");
}

#[test]
fn tensors_read_the_same_from_raw_and_typed_lists() {
    let raw = tensor::new("w", &[2, 2], &[1.0f32, -2.0, 3.5, 0.0]);
    let typed =
        TensorProto { raw_data: None, float_data: vec![1.0, -2.0, 3.5, 0.0], ..raw.clone() };
    assert_eq!(tensor::f32s(&raw).unwrap(), tensor::f32s(&typed).unwrap());
    let half = TensorProto {
        data_type: Some(10),
        raw_data: Some(Bytes::from_static(&[0x00, 0x3C])),
        dims: vec![1],
        ..raw.clone()
    };
    assert_eq!(tensor::f32s(&half).unwrap()[..], [1.0]);
    for broken in [vec![3], vec![-1, 4], vec![i64::MAX, i64::MAX]] {
        let tensor = TensorProto { dims: broken, ..raw.clone() };
        assert!(tensor::f32s(&tensor).is_err());
    }
    assert!(tensor::i64s(&raw).is_err());
}

#[test]
fn raising_moves_axes_into_inputs() {
    let mut graph = chain();
    graph.insert(node("Unsqueeze", &["y"], &["u"]).with_ints("axes", &[0])).unwrap();
    graph.add_output("u");
    let mut model = Model::new(graph, 11);
    model.raise_to_13().unwrap();
    assert_eq!(model.opset(""), Some(13));
    let id = model.graph().nodes_of("Unsqueeze")[0];
    let axes = model.graph().node(id).input[1].clone();
    assert_eq!(tensor::i64s(model.graph().weight(&axes).unwrap()).unwrap()[..], [0]);
    assert!(matches!(Model::new(chain(), 9).raise_to_13(), Err(OnnxError::Opset { from: 9, .. })));
}
