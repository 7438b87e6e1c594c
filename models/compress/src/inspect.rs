//! What is in a model: inputs, outputs, operators, parameters, and multiplications of each layer.

use std::collections::{BTreeMap, HashMap};

use models::onnx::attribute::Attributes;
use models::onnx::proto::tensor_shape_proto::dimension::Value as Dimension;
use models::onnx::proto::type_proto::Value as Type;
use models::onnx::proto::{NodeProto, TensorProto};
use models::onnx::{Model, tensor};
use models::ort_backend::OrtBackend;
use serde::Serialize;

use crate::error::CompressError;
use crate::integers;
use crate::scratch::Scratch;

/// What is in a model.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What made it.
    pub producer: String,
    /// The format's version.
    pub ir_version: i64,
    /// Versions of the operators, by domain; the standard's is empty.
    pub opsets: BTreeMap<String, i64>,
    /// What it takes; -1 is any size.
    pub inputs: Vec<Value>,
    /// What it gives.
    pub outputs: Vec<Value>,
    /// How often each operator occurs, outside subgraphs.
    pub operators: BTreeMap<String, usize>,
    /// How many numbers the weights hold.
    pub parameters: usize,
    /// How many bytes they take.
    pub weight_bytes: usize,
    /// Multiplications with additions of one item, over the layers whose shapes are known.
    pub macs: u64,
    /// The layers with weights, in order.
    pub layers: Vec<Layer>,
}

/// An input or output.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its element type, in ONNX's words.
    pub datatype: String,
    /// Its dimensions; -1 is any size.
    pub shape: Vec<i64>,
}

/// A layer with weights.
#[derive(Debug, Clone, Serialize)]
pub struct Layer {
    /// Its first output.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// The element type of its weights in the file, in ONNX's words.
    pub datatype: String,
    /// The shape of its weights.
    pub weights: Vec<i64>,
    /// The shape of its output, where ONNX Runtime can infer it.
    pub output: Option<Vec<i64>>,
    /// How many numbers its weights and bias hold.
    pub parameters: usize,
    /// Multiplications with additions, where the shape is known.
    pub macs: Option<u64>,
}

/// Looks into a model. Dimensions that may have any size count as 1, but those in `sizes`.
///
/// # Errors
/// [`CompressError`].
pub fn inspect(
    model: &Model,
    sizes: &HashMap<String, Vec<i64>>,
    backend: &OrtBackend,
) -> Result<Report, CompressError> {
    let graph = model.graph();
    let shapes = shapes(model, sizes, backend)?;
    let mut operators: BTreeMap<String, usize> = BTreeMap::new();
    graph.nodes().for_each(|(_, node)| *operators.entry(qualified(node)).or_default() += 1);
    let order = graph.order()?;
    let layers = order.into_iter().filter_map(|id| layer(model, graph.node(id), &shapes));
    let layers: Vec<Layer> = layers.collect();
    let (mut parameters, mut weight_bytes) = (0, 0);
    graph.for_each_tensor(&mut |weights| {
        parameters += tensor::elements(&weights.dims).unwrap_or(0);
        weight_bytes += tensor::size_bytes(weights).unwrap_or(0);
    });
    let value = |info: &models::onnx::proto::ValueInfoProto| {
        let (element, shape) = graph.shape(info.name()).unwrap_or_default();
        let datatype = tensor::element::name(element).to_owned();
        Value { name: info.name().to_owned(), datatype, shape }
    };
    let opsets = model.head().opset_import.iter();
    Ok(Report {
        producer: format!("{} {}", model.head().producer_name(), model.head().producer_version()),
        ir_version: model.head().ir_version(),
        opsets: opsets.map(|set| (set.domain().to_owned(), set.version())).collect(),
        inputs: graph.required_inputs().map(value).collect(),
        outputs: graph.outputs().iter().map(value).collect(),
        operators,
        parameters,
        weight_bytes,
        macs: layers.iter().filter_map(|layer| layer.macs).sum(),
        layers,
    })
}

pub(crate) fn qualified(node: &NodeProto) -> String {
    match node.domain() {
        "" | "ai.onnx" => node.op_type().to_owned(),
        domain => format!("{domain}.{}", node.op_type()),
    }
}

/// The shapes of all values, as ONNX Runtime infers them for fixed inputs.
pub(crate) fn shapes(
    model: &Model,
    sizes: &HashMap<String, Vec<i64>>,
    backend: &OrtBackend,
) -> Result<HashMap<String, Vec<i64>>, CompressError> {
    let mut fixed = model.clone();
    fix(&mut fixed, sizes);
    // Paddings and shapes that an export computes at run time are in the way of every shape behind them.
    crate::fold::constants(&mut fixed, backend)?;
    let values: Vec<String> =
        fixed.graph().nodes().flat_map(|(_, node)| node.output.clone()).collect();
    let graph = fixed.graph_mut();
    values.iter().filter(|value| !value.is_empty()).for_each(|value| graph.add_output(value));
    let scratch = Scratch::new()?;
    let path = scratch.path("model.onnx");
    fixed.write(&path)?;
    let outputs = backend.outputs_of(&path)?;
    Ok(outputs.into_iter().map(|output| (output.name, output.shape)).collect())
}

fn fix(model: &mut Model, sizes: &HashMap<String, Vec<i64>>) {
    let head = model.graph_mut().head_mut();
    for input in &mut head.input {
        let given = sizes.get(input.name()).cloned();
        let Some(Type::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
        else {
            continue;
        };
        let dims = tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim);
        for (axis, dimension) in dims.enumerate() {
            let wanted = given.as_ref().and_then(|given| given.get(axis)).copied();
            let free = !matches!(dimension.value, Some(Dimension::DimValue(_)));
            if let Some(size) = wanted.or_else(|| free.then_some(1)) {
                dimension.value = Some(Dimension::DimValue(size));
            }
        }
    }
    // What the file says of its outputs may contradict the fixed sizes.
    for output in &mut head.output {
        output.r#type = None;
    }
    head.value_info.clear();
}

/// A layer, if the node has weights of two dimensions or more, floats or integers.
fn layer(model: &Model, node: &NodeProto, shapes: &HashMap<String, Vec<i64>>) -> Option<Layer> {
    let graph = model.graph();
    let is_table = |weights: &&TensorProto| {
        weights.dims.len() >= 2 && tensor::elements(&weights.dims).is_some_and(|n| n >= 2)
    };
    let held = |input: &String| integers::held(graph, input);
    let weights = node.input.iter().find_map(|input| held(input).filter(is_table))?;
    if integers::is_between(node) {
        return None;
    }
    let count = |input: &String| held(input).and_then(|w| tensor::elements(&w.dims));
    let name = node.output.first()?.clone();
    let output = shapes.get(&name).cloned();
    let macs = output.as_ref().and_then(|output| macs(node, &weights.dims, output));
    Some(Layer {
        operator: qualified(node),
        datatype: tensor::element::name(weights.data_type()).to_owned(),
        weights: weights.dims.clone(),
        parameters: node.input.iter().filter_map(count).sum(),
        output,
        macs,
        name,
    })
}

pub(crate) fn macs(node: &NodeProto, weights: &[i64], output: &[i64]) -> Option<u64> {
    let product = |dims: &[i64]| {
        dims.iter().try_fold(1u64, |all, d| all.checked_mul(u64::try_from(*d).ok()?))
    };
    let each = match node.op_type() {
        "Conv" | "QLinearConv" | "ConvInteger" => product(weights.get(1..)?)?,
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
            product(weights.get(weights.len() - 2..)?.get(..1)?)?
        }
        "Gemm" => {
            let inner = usize::from(node.int("transB").unwrap_or(0) != 0);
            product(&[*weights.get(inner)?])?
        }
        "MatMulNBits" => u64::try_from(node.int("K")?).ok()?,
        _ => return None,
    };
    product(output)?.checked_mul(each)
}
