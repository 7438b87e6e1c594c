//! A graph that is edited: nodes, weights and values, with an index of who makes and who reads each value.
//!
//! Values are named, as in the file. A value has one maker at most: a node, an input of the graph or a weight.
//! A node reads its inputs, and what subgraphs in its attributes take from outside. Every method keeps the index
//! true, so it is asked instead of searching.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use super::error::OnnxError;
use super::order;
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

mod captured;
mod edit;
mod values;
mod walk;

pub use values::dimensions;

/// A node of one [`Graph`], for as long as it is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A graph. See the [module's](self) words.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Everything but nodes and weights.
    head: GraphProto,
    nodes: Vec<Option<NodeProto>>,
    weights: Vec<Option<TensorProto>>,
    weight_index: HashMap<String, usize>,
    makers: HashMap<String, NodeId>,
    readers: HashMap<String, BTreeSet<NodeId>>,
    /// For [`Graph::fresh`].
    named: u64,
}

static REMOVED: LazyLock<NodeProto> = LazyLock::new(NodeProto::default);

impl Graph {
    /// Indexes a graph.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`], [`OnnxError::TooMany`] and [`OnnxError::Cycle`].
    pub fn new(mut proto: GraphProto) -> Result<Self, OnnxError> {
        let nodes = std::mem::take(&mut proto.node);
        let weights = std::mem::take(&mut proto.initializer);
        let mut graph = Self { head: proto, ..Self::default() };
        for tensor in weights {
            if graph.weight_index.contains_key(tensor.name()) {
                return Err(OnnxError::MadeTwice(tensor.name().to_owned()));
            }
            graph.set_weight(tensor);
        }
        for node in nodes {
            graph.insert(node)?;
        }
        order::order(&graph)?;
        Ok(graph)
    }

    /// The message, nodes in topological order.
    ///
    /// # Errors
    /// [`OnnxError::Cycle`].
    pub fn to_proto(&self) -> Result<GraphProto, OnnxError> {
        let order = self.order()?;
        Ok(GraphProto {
            node: order.into_iter().map(|id| self.node(id).clone()).collect(),
            initializer: self.weights().cloned().collect(),
            ..self.head.clone()
        })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.ids().count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.ids().next().is_none()
    }

    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes' names in this graph, in the order in which they came.
    #[allow(clippy::cast_possible_truncation)] // `insert` bounds the number of slots
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        let filled = self.nodes.iter().enumerate().filter(|(_, node)| node.is_some());
        filled.map(|(index, _)| NodeId(index as u32))
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeProto)> + '_ {
        self.ids().map(|id| (id, self.node(id)))
    }

    /// A node; one that was removed reads as empty.
    pub fn node(&self, id: NodeId) -> &NodeProto {
        self.nodes.get(id.index()).and_then(Option::as_ref).unwrap_or(&REMOVED)
    }

    /// The nodes of one operator of the standard's domain.
    pub fn nodes_of(&self, op: &str) -> Vec<NodeId> {
        self.nodes().filter(|(_, node)| is_op(node, op)).map(|(id, _)| id).collect()
    }

    /// Every chain of these operators in which each node's first output is read by the next one alone.
    pub fn chains(&self, ops: &[&str]) -> Vec<Vec<NodeId>> {
        let Some((first, rest)) = ops.split_first() else { return Vec::new() };
        let follow = |start: NodeId| {
            let mut chain = vec![start];
            for op in rest {
                let output = self.node(*chain.last()?).output.first()?;
                let next = self.sole_reader(output)?;
                is_op(self.node(next), op).then(|| chain.push(next))?;
            }
            Some(chain)
        };
        self.nodes_of(first).into_iter().filter_map(follow).collect()
    }

    /// Every node after those whose values it reads.
    ///
    /// # Errors
    /// [`OnnxError::Cycle`].
    pub fn order(&self) -> Result<Vec<NodeId>, OnnxError> {
        order::order(self)
    }

    /// The node that makes a value; none for inputs, weights and unknown names.
    pub fn maker(&self, value: &str) -> Option<NodeId> {
        self.makers.get(value).copied()
    }

    /// The nodes that read a value, through their inputs or from inside their subgraphs.
    pub fn readers(&self, value: &str) -> impl Iterator<Item = NodeId> + '_ {
        self.readers.get(value).into_iter().flatten().copied()
    }

    /// The only node that reads a value, if nobody outside the graph gets it.
    pub fn sole_reader(&self, value: &str) -> Option<NodeId> {
        let mut readers = self.readers(value);
        let reader = readers.next()?;
        (readers.next().is_none() && !self.is_output(value)).then_some(reader)
    }

    /// The nodes whose values a node reads; the first is last.
    pub(super) fn makers_for(&self, id: NodeId) -> Vec<NodeId> {
        let reads = captured::reads(self.node(id));
        reads.iter().rev().filter_map(|value| self.maker(value)).collect()
    }

    /// The graph's inputs; in old files weights as well.
    pub fn inputs(&self) -> &[ValueInfoProto] {
        &self.head.input
    }

    /// The graph's outputs.
    pub fn outputs(&self) -> &[ValueInfoProto] {
        &self.head.output
    }

    /// Everything but nodes and weights.
    pub fn head(&self) -> &GraphProto {
        &self.head
    }

    /// Everything but nodes and weights, to be edited.
    pub fn head_mut(&mut self) -> &mut GraphProto {
        &mut self.head
    }
}

/// Whether a node is this operator of the standard's domain.
pub fn is_op(node: &NodeProto, op: &str) -> bool {
    node.op_type() == op && matches!(node.domain(), "" | "ai.onnx")
}
