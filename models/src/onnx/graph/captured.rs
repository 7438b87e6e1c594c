//! What a node reads: its inputs, and what the subgraphs in its attributes take from outside.

use std::collections::HashSet;

use crate::onnx::proto::{GraphProto, NodeProto};

/// The values that a node reads, in the order of its inputs.
pub(super) fn reads(node: &NodeProto) -> Vec<&str> {
    let mut reads: Vec<&str> =
        node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for graph in subgraphs(node) {
        reads.extend(from_outside(graph));
    }
    reads
}

/// The subgraphs in a node's attributes.
pub(super) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// The same, to be edited.
pub(super) fn subgraphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute
        .iter_mut()
        .flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs))
}

/// What a graph reads without making it.
fn from_outside(graph: &GraphProto) -> Vec<&str> {
    let made = made(graph);
    let inner = graph.node.iter().flat_map(reads);
    let outputs = graph.output.iter().map(super::super::proto::ValueInfoProto::name);
    inner.chain(outputs).filter(|name| !made.contains(name)).collect()
}

fn made(graph: &GraphProto) -> HashSet<&str> {
    let inputs = graph.input.iter().map(super::super::proto::ValueInfoProto::name);
    let weights = graph.initializer.iter().map(super::super::proto::TensorProto::name);
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    let sparse = sparse.map(super::super::proto::TensorProto::name);
    let nodes = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    inputs.chain(weights).chain(sparse).chain(nodes).collect()
}

/// Makes a node read another value; inside its subgraphs too.
pub(super) fn replace(node: &mut NodeProto, from: &str, to: &str) {
    for input in node.input.iter_mut().filter(|input| *input == from) {
        to.clone_into(input);
    }
    for graph in subgraphs_mut(node).filter(|graph| !made(graph).contains(from)) {
        graph.node.iter_mut().for_each(|node| replace(node, from, to));
        for output in graph.output.iter_mut().filter(|output| output.name() == from) {
            output.name = Some(to.to_owned());
        }
    }
}
