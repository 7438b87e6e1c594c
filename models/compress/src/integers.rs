//! Weights that are integers in a file and floats where they are read: behind a `DequantizeLinear`.

use std::collections::HashMap;

use models::onnx::attribute::Attributes;
use models::onnx::graph::is_op;
use models::onnx::proto::{NodeProto, TensorProto};
use models::onnx::{Graph, tensor};

/// What makes floats of integers, or integers of floats.
const BETWEEN: [&str; 2] = ["DequantizeLinear", "QuantizeLinear"];

/// Whether a node only stands between floats and integers.
pub(crate) fn is_between(node: &NodeProto) -> bool {
    BETWEEN.iter().any(|op| is_op(node, op))
}

/// The weights of an input: as they are, or the integers that they come from.
pub(crate) fn held<'g>(graph: &'g Graph, input: &str) -> Option<&'g TensorProto> {
    graph.weight(input).or_else(|| {
        let node = graph.node(graph.maker(input)?);
        is_op(node, "DequantizeLinear").then(|| graph.weight(node.input.first()?)).flatten()
    })
}

/// The integers among a graph's weights that are read as floats, by their names, with who makes the floats.
pub(crate) fn all(graph: &Graph) -> HashMap<&str, &NodeProto> {
    let nodes = graph.nodes().map(|(_, node)| node).filter(|node| is_op(node, "DequantizeLinear"));
    let held = |node: &'_ &NodeProto| node.input.first().is_some_and(|i| graph.weight(i).is_some());
    nodes.filter(held).map(|node| (node.input[0].as_str(), node)).collect()
}

/// Whether weights are nothing but scales and zero points.
pub(crate) fn is_grid(graph: &Graph, name: &str) -> bool {
    let mut readers = graph.readers(name).peekable();
    readers.peek().is_some()
        && readers.all(|id| {
            let node = graph.node(id);
            is_between(node) && node.input.first().is_none_or(|input| input != name)
        })
}

/// The floats that a `DequantizeLinear` makes of weights of eight bits; none for another form.
pub(crate) fn floats(graph: &Graph, node: &NodeProto) -> Option<Vec<f32>> {
    let weight = graph.weight(node.input.first()?)?;
    let is_signed = weight.data_type() == tensor::element::INT8;
    if !is_signed && weight.data_type() != tensor::element::UINT8 {
        return None;
    }
    let number = |byte: &u8| match is_signed {
        true => f32::from(i8::from_ne_bytes([*byte])),
        false => f32::from(*byte),
    };
    let scales = tensor::f32s(graph.weight(node.input.get(1)?)?).ok()?;
    let zeros = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => graph.weight(name)?.raw_data().iter().map(number).collect(),
        None => vec![0.0; scales.len()],
    };
    let axis = node.int("axis").unwrap_or(1);
    let axis = usize::try_from(if axis < 0 {
        axis + i64::try_from(weight.dims.len()).ok()?
    } else {
        axis
    });
    let inner = tensor::elements(weight.dims.get(axis.ok()? + 1..).unwrap_or(&[]))?.max(1);
    if node.int("block_size").unwrap_or(0) != 0 || scales.is_empty() || zeros.len() != scales.len()
    {
        return None;
    }
    let one = |(index, byte): (usize, &u8)| {
        let channel = if scales.len() == 1 { 0 } else { index / inner % scales.len() };
        (number(byte) - zeros[channel]) * scales[channel]
    };
    Some(weight.raw_data().iter().enumerate().map(one).collect())
}
