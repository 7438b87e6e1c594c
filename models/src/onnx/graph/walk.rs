//! Every tensor of a graph: weights, constants in attributes, and those of subgraphs.

use super::{Graph, captured};
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};

impl Graph {
    /// Calls for every tensor, also those in attributes and subgraphs.
    pub fn for_each_tensor(&self, call: &mut impl FnMut(&TensorProto)) {
        self.weights().for_each(&mut *call);
        sparse(&self.head.sparse_initializer, call);
        self.nodes().for_each(|(_, node)| of_node(node, call));
    }

    /// Calls for every tensor, to be edited.
    pub fn for_each_tensor_mut(&mut self, call: &mut impl FnMut(&mut TensorProto)) {
        self.weights_mut().for_each(&mut *call);
        self.head.sparse_initializer.iter_mut().for_each(|s| of_sparse_mut(s, call));
        self.nodes.iter_mut().flatten().for_each(|node| of_node_mut(node, call));
    }
}

fn sparse(tensors: &[SparseTensorProto], call: &mut impl FnMut(&TensorProto)) {
    let parts = tensors.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices));
    parts.for_each(call);
}

fn of_node(node: &NodeProto, call: &mut impl FnMut(&TensorProto)) {
    for attribute in &node.attribute {
        attribute.t.iter().chain(&attribute.tensors).for_each(&mut *call);
        sparse(attribute.sparse_tensor.as_slice(), call);
        sparse(&attribute.sparse_tensors, call);
    }
    for graph in captured::subgraphs(node) {
        graph.initializer.iter().for_each(&mut *call);
        sparse(&graph.sparse_initializer, call);
        graph.node.iter().for_each(|node| of_node(node, call));
    }
}

fn of_sparse_mut(sparse: &mut SparseTensorProto, call: &mut impl FnMut(&mut TensorProto)) {
    sparse.values.iter_mut().chain(&mut sparse.indices).for_each(call);
}

fn of_node_mut(node: &mut NodeProto, call: &mut impl FnMut(&mut TensorProto)) {
    for attribute in &mut node.attribute {
        let AttributeProto { t, tensors, sparse_tensor, sparse_tensors, .. } = attribute;
        t.iter_mut().chain(tensors).for_each(&mut *call);
        sparse_tensor.iter_mut().chain(sparse_tensors).for_each(|s| of_sparse_mut(s, call));
    }
    captured::subgraphs_mut(node).for_each(|graph| of_graph_mut(graph, call));
}

fn of_graph_mut(graph: &mut GraphProto, call: &mut impl FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *call);
    graph.sparse_initializer.iter_mut().for_each(|s| of_sparse_mut(s, call));
    graph.node.iter_mut().for_each(|node| of_node_mut(node, call));
}
