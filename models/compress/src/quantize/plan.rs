//! Applies the [table](super::rules) to a graph: which nodes become integers, and which values between them.

use std::collections::{BTreeMap, BTreeSet};

use models::onnx::attribute::Attributes;
use models::onnx::graph::is_op;
use models::onnx::proto::NodeProto;
use models::onnx::{Graph, Model, NodeId, tensor};

use super::rules::{ABSORBED, ALIKE, Channels, Kind, Rule, rule};
use crate::calibrate::Seen;
use crate::histogram::Method;

/// A node that becomes integers.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The node.
    pub node: NodeId,
    /// Its row of the table.
    pub rule: &'static Rule,
    /// Along which axis the weights have scales, for a weighted node.
    pub axis: Option<usize>,
}

/// What becomes of a model.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The nodes, in topological order.
    pub nodes: Vec<Planned>,
    /// The values that become integers, each with the value whose scale it has: mostly its own.
    pub values: BTreeMap<String, String>,
    /// Nodes that could have been quantized but for their form, by their first output, with the reason.
    pub left: Vec<(String, &'static str)>,
}

impl Plan {
    /// The values whose ranges must be known.
    pub fn measured(&self) -> Vec<String> {
        let roots: BTreeSet<&String> = self.values.values().collect();
        roots.into_iter().cloned().collect()
    }

    /// The operators that a runtime should fuse, one for each node.
    pub fn fusable(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.nodes.iter().filter(|p| !p.rule.fused.is_empty()).map(|p| p.rule.op)
    }
}

/// Plans the static quantization of a model. `float` names nodes that stay as they are, by their first output.
/// Without ranges every Concat is in the plan, so that its inputs get measured.
pub fn plan(model: &Model, float: &BTreeSet<String>, seen: Option<(&Seen, Method)>) -> Plan {
    let graph = model.graph();
    let mut planner = Planner { graph, seen, plan: Plan::default() };
    for id in graph.order().unwrap_or_default() {
        let node = graph.node(id);
        let output = node.output.first().cloned().unwrap_or_default();
        let Some(rule) = rule(node.op_type()).filter(|rule| is_op(node, rule.op)) else { continue };
        if float.contains(&output) {
            continue;
        }
        match rule.kind {
            Kind::Weighted { channels, float_output } => {
                match planner.weighted((id, rule), channels, float_output) {
                    Ok(()) => {}
                    Err(reason) => planner.plan.left.push((output, reason)),
                }
            }
            Kind::Own => planner.own(id, rule),
            Kind::Joined if planner.are_alike(node) => planner.own(id, rule),
            Kind::Joined => {}
            Kind::Moved => planner.moved(id, rule),
        }
    }
    planner.plan
}

struct Planner<'g> {
    graph: &'g Graph,
    seen: Option<(&'g Seen, Method)>,
    plan: Plan,
}

impl Planner<'_> {
    fn weighted(
        &mut self,
        (id, rule): (NodeId, &'static Rule),
        channels: Channels,
        float_output: bool,
    ) -> Result<(), &'static str> {
        let node = self.graph.node(id);
        let (Some(input), Some(weight)) = (node.input.first(), node.input.get(1)) else {
            return Err("it has no weights");
        };
        let weight = self.graph.constant(weight).ok_or("its weights are computed at run time")?;
        if weight.data_type() != tensor::element::FLOAT {
            return Err("its weights are not float32");
        }
        let axis = form(self.graph, node, channels, weight.dims.len())?;
        if self.graph.weight(input).is_some() {
            return Err("its input is constant");
        }
        if self.seen.is_some_and(|(seen, _)| !seen.contains_key(self.root(input))) {
            return Err("its input is no float32 that was measured");
        }
        let end = tail(self.graph, node);
        // A matrix product hands on floats: what follows it is mostly a bias or a normalization.
        let float_end = float_output && (rule.op == "MatMul" || self.graph.is_output(&end));
        if !float_end && self.graph.is_output(&end) {
            return Err("its output is the model's");
        }
        let input = input.clone();
        self.value(&input);
        if !float_end {
            self.value(&end);
        }
        self.plan.nodes.push(Planned { node: id, rule, axis: Some(axis) });
        Ok(())
    }

    fn own(&mut self, id: NodeId, rule: &'static Rule) {
        let node = self.graph.node(id);
        let end = tail(self.graph, node);
        let known = node.input.iter().all(|input| self.plan.values.contains_key(input));
        if known && !node.input.is_empty() && !self.graph.is_output(&end) {
            self.value(&end);
            self.plan.nodes.push(Planned { node: id, rule, axis: None });
        }
    }

    fn moved(&mut self, id: NodeId, rule: &'static Rule) {
        let node = self.graph.node(id);
        let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { return };
        let single = node.output.len() == 1 || node.output[1].is_empty();
        let root = self.plan.values.get(input).cloned();
        if let Some(root) = root.filter(|_| single && !self.graph.is_output(output)) {
            self.plan.values.insert(output.clone(), root);
            self.plan.nodes.push(Planned { node: id, rule, axis: None });
        }
    }

    fn value(&mut self, value: &str) {
        self.plan.values.entry(value.to_owned()).or_insert_with(|| value.to_owned());
    }

    fn root<'v>(&'v self, value: &'v str) -> &'v str {
        self.plan.values.get(value).map_or(value, String::as_str)
    }

    fn are_alike(&self, node: &NodeProto) -> bool {
        let Some((seen, method)) = self.seen else { return true };
        let width = |input: &String| Some(seen.get(self.root(input))?.range(method).width());
        let widths: Option<Vec<f32>> = node.input.iter().map(width).collect();
        let Some(widths) = widths else { return false };
        let widest = widths.iter().copied().fold(0.0, f32::max);
        let narrowest = widths.iter().copied().fold(f32::INFINITY, f32::min);
        widest <= narrowest * ALIKE
    }
}

/// The axis of the weights' scales, or why the node's form cannot be fused.
fn form(
    graph: &Graph,
    node: &NodeProto,
    channels: Channels,
    rank: usize,
) -> Result<usize, &'static str> {
    let is_matrix = rank == 2;
    let transposed = node.int("transB").unwrap_or(0) != 0;
    let axis = match channels {
        Channels::First if rank >= 3 => 0,
        Channels::Last if is_matrix => 1,
        Channels::ByTransposition if is_matrix => usize::from(!transposed),
        _ => return Err("its weights have another rank"),
    };
    let bias = node.input.get(2).filter(|bias| !bias.is_empty());
    if let Some(bias) = bias {
        let bias = graph.constant(bias).ok_or("its bias is computed at run time")?;
        if bias.dims.len() != 1 || bias.data_type() != tensor::element::FLOAT {
            return Err("its bias is not one number for each channel");
        }
    }
    let plain = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
    if !(plain("alpha") && plain("beta")) || node.int("transA").unwrap_or(0) != 0 {
        return Err("its alpha, beta or transA is not plain");
    }
    Ok(axis)
}

/// The value behind the activation function that is absorbed, or the node's own.
pub(super) fn tail(graph: &Graph, node: &NodeProto) -> String {
    let output = node.output.first().cloned().unwrap_or_default();
    let next = graph.sole_reader(&output).map(|id| graph.node(id));
    let absorbed = next.filter(|next| {
        ABSORBED.iter().any(|op| is_op(next, op))
            && next.input.first() == Some(&output)
            && next.input.iter().skip(1).all(|end| end.is_empty() || graph.constant(end).is_some())
    });
    absorbed.and_then(|next| next.output.first().cloned()).unwrap_or(output)
}
