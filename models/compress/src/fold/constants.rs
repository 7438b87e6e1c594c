//! Nodes that only read weights become weights. ONNX Runtime computes them, so they are what it would
//! have computed.

use std::collections::HashSet;

use models::backend::Backend;
use models::onnx::graph::is_op;
use models::onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use models::onnx::{Graph, Model, NodeId, tensor};
use protocol::tensor::{DataType, Tensor};

use crate::error::CompressError;
use crate::scratch::Scratch;

/// Operators that are not to be computed now: random, as yet unquantized, or of a size that only
/// shows when it is too late.
const LEFT: [&str; 16] = [
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Tile",
    "Range",
    "OneHot",
    "Resize",
    "Upsample",
    "Pad",
    "Optional",
];
/// The largest tensor that is made out of a shape alone.
const MADE_MAX_ELEMENTS: usize = 1 << 20;
/// The largest tensor that is made from smaller ones.
const GROWN_MAX_BYTES: usize = 1 << 16;

/// Folds until nothing is left to fold; how many nodes went.
pub(super) fn fold(model: &mut Model, backend: &dyn Backend) -> Result<usize, CompressError> {
    let mut folded = literals(model.graph_mut());
    let mut left = HashSet::new();
    let scratch = Scratch::new()?;
    loop {
        let graph = model.graph();
        let ready: Vec<NodeId> =
            graph.ids().filter(|id| !left.contains(id) && is_ready(graph, *id)).collect();
        if ready.is_empty() {
            return Ok(folded);
        }
        // One that ONNX Runtime cannot run alone must not keep the others from it.
        let together = compute(model, &ready, &scratch, backend);
        let results: Vec<Vec<Tensor>> = match together {
            Some(tensors) => vec![tensors],
            None => {
                ready.iter().filter_map(|id| compute(model, &[*id], &scratch, backend)).collect()
            }
        };
        let tensors: Vec<Tensor> = results.into_iter().flatten().collect();
        for id in ready {
            left.insert(id);
            folded += usize::from(keep(model.graph_mut(), id, &tensors));
        }
    }
}

/// `Constant` nodes.
fn literals(graph: &mut Graph) -> usize {
    let mut folded = 0;
    for id in graph.nodes_of("Constant") {
        let node = graph.node(id);
        let Some(name) = node.output.first().filter(|name| !graph.is_output(name)).cloned() else {
            continue;
        };
        let Some(value) = literal(node) else { continue };
        graph.remove(id);
        graph.set_weight(TensorProto { name: Some(name), ..value });
        folded += 1;
    }
    folded
}

fn literal(node: &NodeProto) -> Option<TensorProto> {
    let attribute = node.attribute.first()?;
    let count = |length: usize| i64::try_from(length).unwrap_or(0);
    Some(match attribute.name() {
        "value" => attribute.t.clone()?,
        "value_float" => tensor::new("", &[], &[attribute.f?]),
        "value_int" => tensor::new("", &[], &[attribute.i?]),
        "value_floats" => tensor::new("", &[count(attribute.floats.len())], &attribute.floats),
        "value_ints" => tensor::new("", &[count(attribute.ints.len())], &attribute.ints),
        _ => return None,
    })
}

fn is_ready(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let standard = is_op(node, node.op_type());
    let plain = node.attribute.iter().all(|a| a.g.is_none() && a.graphs.is_empty());
    let inputs = || node.input.iter().filter(|input| !input.is_empty());
    let known = inputs().next().is_some() && inputs().all(|input| graph.constant(input).is_some());
    let given_out = node.output.iter().any(|output| graph.is_output(output));
    let sequence = node.op_type().contains("Sequence");
    standard
        && plain
        && known
        && !given_out
        && !sequence
        && !LEFT.contains(&node.op_type())
        && is_small(graph, node)
}

/// Whether what a shape makes is small.
fn is_small(graph: &Graph, node: &NodeProto) -> bool {
    let shape = match node.op_type() {
        "ConstantOfShape" => node.input.first(),
        "Expand" => node.input.get(1),
        _ => return true,
    };
    let values = shape.and_then(|shape| graph.weight(shape)).map(tensor::i64s);
    let Some(Ok(values)) = values else { return false };
    tensor::elements(&values).is_some_and(|elements| elements <= MADE_MAX_ELEMENTS)
}

/// The outputs of some nodes; none if ONNX Runtime refuses.
fn compute(
    model: &Model,
    nodes: &[NodeId],
    scratch: &Scratch,
    backend: &dyn Backend,
) -> Option<Vec<Tensor>> {
    let graph = model.graph();
    let mut part = GraphProto { name: Some("constants".to_owned()), ..GraphProto::default() };
    let mut weights = HashSet::new();
    for id in nodes {
        let node = graph.node(*id).clone();
        let read = node.input.iter().filter(|input| weights.insert((*input).clone()));
        part.initializer.extend(read.filter_map(|input| graph.weight(input)).cloned());
        let named = node.output.iter().filter(|output| !output.is_empty());
        part.output.extend(named.map(|output| ValueInfoProto {
            name: Some(output.clone()),
            ..ValueInfoProto::default()
        }));
        part.node.push(node);
    }
    let mut alone = Model::new(Graph::new(part).ok()?, model.opset("")?);
    alone.head_mut().ir_version = model.head().ir_version;
    let mut session = scratch.load(&alone, backend).ok()?;
    session.run(&[], &[]).ok()
}

/// Puts the computed values in a node's place; false when one is missing or too large.
fn keep(graph: &mut Graph, id: NodeId, computed: &[Tensor]) -> bool {
    let node = graph.node(id).clone();
    let size = |name: &String| graph.weight(name).and_then(tensor::size_bytes).unwrap_or(0);
    let read: usize = node.input.iter().map(size).sum();
    let find = |name: &String| {
        let found = computed.iter().find(|tensor| tensor.name() == name)?;
        let small = found.data().len() <= GROWN_MAX_BYTES.max(read);
        small.then(|| to_weight(found)).flatten()
    };
    let named = node.output.iter().filter(|output| !output.is_empty());
    let Some(weights) = named.map(find).collect::<Option<Vec<_>>>() else { return false };
    graph.remove(id);
    weights.into_iter().for_each(|weight| graph.set_weight(weight));
    true
}

fn to_weight(tensor: &Tensor) -> Option<TensorProto> {
    let element = match tensor.datatype() {
        DataType::Bool => 9,
        DataType::Uint8 => 2,
        DataType::Uint16 => 4,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Int8 => 3,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Fp16 => 10,
        DataType::Bf16 => 16,
        DataType::Fp32 => 1,
        DataType::Fp64 => 11,
        DataType::Bytes => return None,
    };
    Some(TensorProto {
        name: Some(tensor.name().to_owned()),
        dims: tensor.shape().to_vec(),
        data_type: Some(element),
        raw_data: Some(tensor.data().clone()),
        ..TensorProto::default()
    })
}
