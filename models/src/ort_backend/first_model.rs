//! The smallest model, which is run once when the library starts: what the runtime makes for all models
//! is there then, and is not taken for the memory of whichever comes first.

use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;
use prost::Message;

use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// ONNX's number for FP32.
const FLOAT: i32 = 1;

/// Loads it, and runs it once.
pub(super) fn run(environment: &Environment) -> Result<(), ort::Error> {
    let mut session =
        Session::builder(environment)?.with_intra_threads(1)?.commit_from_memory(&model())?;
    session.run(ort::inputs!["x" => Tensor::from_array(([1], vec![0f32]))?])?;
    Ok(())
}

/// `y = x + x`, for one FP32.
fn model() -> Vec<u8> {
    let add = NodeProto {
        op_type: Some("Add".into()),
        input: vec!["x".into(), "x".into()],
        output: vec!["y".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("first".into()),
        node: vec![add],
        input: vec![one_float("x")],
        output: vec![one_float("y")],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(13) }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn one_float(name: &str) -> ValueInfoProto {
    let one = Dimension { value: Some(dimension::Value::DimValue(1)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: Some(FLOAT),
        shape: Some(TensorShapeProto { dim: vec![one] }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: Some(name.into()), r#type, ..ValueInfoProto::default() }
}
