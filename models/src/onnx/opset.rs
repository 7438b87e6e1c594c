//! Which version of each domain's operators a model uses, and raising it.

use super::attribute::{Attributes, node};
use super::error::OnnxError;
use super::file::Model;
use super::graph::NodeId;
use super::proto::OperatorSetIdProto;
use super::tensor;

/// Operators whose `axes` or `split` became an input with opset 13.
const MOVED: [(&str, &str, usize); 4] = [
    ("Squeeze", "axes", 1),
    ("Unsqueeze", "axes", 1),
    ("ReduceSum", "axes", 1),
    ("Split", "split", 1),
];
/// Operators that flatten at their axis before opset 13, and work along it since.
const FLATTENING: [&str; 3] = ["Softmax", "LogSoftmax", "Hardmax"];

fn same(a: &str, b: &str) -> bool {
    let plain =
        |domain: &'_ str| if domain == "ai.onnx" { String::new() } else { domain.to_owned() };
    plain(a) == plain(b)
}

impl Model {
    /// The version of a domain's operators; the standard's domain is empty.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let imports = &self.head().opset_import;
        imports.iter().find(|import| same(import.domain(), domain)).map(OperatorSetIdProto::version)
    }

    /// Says which version of a domain's operators is meant, without changing any node.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let imports = &mut self.head_mut().opset_import;
        match imports.iter_mut().find(|import| same(import.domain(), domain)) {
            Some(import) => import.version = Some(version),
            None => imports.push(OperatorSetIdProto {
                domain: Some(domain.to_owned()),
                version: Some(version),
            }),
        }
    }

    /// Raises a model of opset 11 or 12 to 13, where scales of channels are possible; newer ones stay
    /// as they are. What the nodes compute stays the same.
    ///
    /// # Errors
    /// [`OnnxError::Opset`] for an older one, or for a node that cannot be carried over.
    pub fn raise_to_13(&mut self) -> Result<(), OnnxError> {
        let from = self.opset("").unwrap_or(1);
        let refuse = |reason: String| OnnxError::Opset { from, to: 13, reason };
        if from >= 13 {
            return Ok(());
        }
        if from < 11 {
            return Err(refuse("export the model at opset 13 or later".to_owned()));
        }
        if self.head().functions.iter().any(|function| !function.node.is_empty()) {
            return Err(refuse("it has functions of its own".to_owned()));
        }
        let nodes = || self.graph().nodes();
        if let Some((_, node)) = nodes().find(|(_, n)| n.attribute.iter().any(|a| a.g.is_some())) {
            return Err(refuse(format!("{} has a subgraph", node.op_type())));
        }
        for (op, attribute, input) in MOVED {
            for id in self.graph().nodes_of(op) {
                self.move_to_input(id, attribute, input)?;
            }
        }
        for op in FLATTENING {
            for id in self.graph().nodes_of(op) {
                self.flatten(id)?;
            }
        }
        self.set_opset("", 13);
        let ir = self.head().ir_version().max(7);
        self.head_mut().ir_version = Some(ir);
        Ok(())
    }

    /// Makes a softmax of before opset 13, which takes all axes from its own on for one, work along the last axis.
    fn flatten(&mut self, id: NodeId) -> Result<(), OnnxError> {
        let softmax = self.graph().node(id).clone();
        let (Some(input), Some(output)) = (softmax.input.first(), softmax.output.first()) else {
            return Ok(());
        };
        let axis = softmax.int("axis");
        let last = self.is_last_axis(axis, &softmax.input);
        let graph = self.graph_mut();
        if last {
            return graph.edit(id, |node| *node = node.clone().with_int("axis", -1));
        }
        let [rows, shares, shape] =
            ["rows", "shares", "shape"].map(|end| graph.fresh(&format!("{output}_{end}")));
        graph.remove(id);
        graph.insert(node("Flatten", &[input], &[&rows]).with_int("axis", axis.unwrap_or(1)))?;
        graph.insert(node(softmax.op_type(), &[&rows], &[&shares]).with_int("axis", -1))?;
        graph.insert(node("Shape", &[input], &[&shape]))?;
        graph.insert(node("Reshape", &[&shares, &shape], &[output]))?;
        Ok(())
    }

    /// Before opset 13 the axis is 1 when absent.
    fn is_last_axis(&self, axis: Option<i64>, inputs: &[String]) -> bool {
        let shape = inputs.first().and_then(|input| self.graph().shape(input));
        let axis = axis.unwrap_or(1);
        let rank = shape.and_then(|(_, dims)| i64::try_from(dims.len()).ok());
        axis == -1 || rank.is_some_and(|rank| axis == rank - 1)
    }

    fn move_to_input(&mut self, id: NodeId, name: &str, input: usize) -> Result<(), OnnxError> {
        let Some(values) = self.graph().node(id).ints(name).map(<[i64]>::to_vec) else {
            return Ok(());
        };
        let output = self.graph().node(id).output.first().cloned().unwrap_or_default();
        let graph = self.graph_mut();
        let weight = graph.fresh(&format!("{output}_{name}"));
        let count = i64::try_from(values.len()).unwrap_or(0);
        graph.set_weight(tensor::new(&weight, &[count], &values));
        graph.edit(id, |node| {
            node.unset(name);
            node.input.truncate(input);
            node.input.push(weight);
        })
    }
}
