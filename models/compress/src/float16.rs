//! Half the bits for every float: for GPUs, which compute `float16` faster, and for transfer.
//!
//! The model keeps its inputs and outputs in `float32`. A node stays in `float32` where `float16` cannot hold what it was
//! seen to read or give (65,504 at most; half of that is left as room), where its operator is not defined for it, or where
//! the caller names it. Casts stand where the two meet. A processor without `float16` runs the result too, through casts of
//! its own: that is how it is checked here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use models::backend::Backend;
use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::NodeProto;
use models::onnx::{Graph, Model, NodeId, OnnxError, tensor};
use protocol::tensor::{DataType, Tensor};
use serde::Serialize;

use crate::error::CompressError;
use crate::measure::Items;
use crate::scratch::Scratch;

/// The largest number that a value in `float16` may have been seen with.
const MOST: f32 = 32_752.0;
/// Operators that ONNX, or its runtimes, do not define for `float16`, or that lose too much by it.
const IN_FLOAT: [&str; 16] = [
    "Resize",
    "Upsample",
    "RoiAlign",
    "NonMaxSuppression",
    "Range",
    "CumSum",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "If",
    "Loop",
    "Scan",
    "RandomNormal",
    "RandomUniform",
    "EyeLike",
    "Multinomial",
];

/// A model in `float16`.
#[derive(Debug, Clone)]
pub struct Halved {
    /// The model.
    pub model: Model,
    /// How many nodes compute in `float16`.
    pub nodes: usize,
    /// Nodes that stay in `float32`, by their first output, with the reason.
    pub left: Vec<Left>,
}

/// A node that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its first output.
    pub output: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: &'static str,
}

/// The most that was seen of each `float32` value.
type Seen = HashMap<String, f32>;

/// Converts a folded model. `named` are nodes that stay, by their first output.
///
/// # Errors
/// [`CompressError`].
pub fn convert(
    model: &Model,
    named: &BTreeSet<String>,
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<Halved, CompressError> {
    let seen = seen(model, (items, chosen), backend)?;
    let (mut halves, mut left) = (BTreeSet::new(), Vec::new());
    for (id, node) in model.graph().nodes() {
        let touches = node.input.iter().chain(&node.output).any(|v| seen.contains_key(v));
        if !touches {
            continue;
        }
        match reason(node, &seen, named) {
            None => {
                halves.insert(id);
            }
            Some(reason) => left.push(Left {
                output: node.output.first().cloned().unwrap_or_default(),
                operator: node.op_type().to_owned(),
                reason,
            }),
        }
    }
    let nodes = halves.len();
    let mut model = model.clone();
    let mut work = Work { seen: &seen, casts: BTreeMap::new(), halves };
    work.convert(model.graph_mut())?;
    model.graph_mut().head_mut().value_info.clear(); // it speaks of other types
    model.graph_mut().remove_dead();
    Ok(Halved { model, nodes, left })
}

/// Runs the model and looks at every `float32` value, weights as well.
fn seen(
    model: &Model,
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<Seen, CompressError> {
    let mut watched = model.clone();
    let inner: BTreeSet<String> =
        model.graph().nodes().flat_map(|(_, node)| node.output.clone()).collect();
    let graph = watched.graph_mut();
    inner.iter().filter(|value| !value.is_empty()).for_each(|value| graph.add_output(value));
    let mut session = Scratch::new()?.load(&watched, backend)?;
    let mut seen = Seen::new();
    let most = |values: &[f32]| values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for weight in model.graph().weights() {
        if weight.data_type() == tensor::element::FLOAT {
            seen.insert(weight.name().to_owned(), most(&tensor::f32s(weight)?));
        }
    }
    for &item in chosen {
        let inputs = items(item)?;
        let outputs = session.run(&inputs, &[]);
        let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
        let floats = |tensor: &&Tensor| tensor.datatype() == DataType::Fp32;
        for tensor in inputs.iter().chain(&outputs).filter(floats) {
            let own = most(&tensor.to_f32().unwrap_or_default());
            let known = seen.entry(tensor.name().to_owned()).or_default();
            *known = known.max(own);
        }
    }
    Ok(seen)
}

/// Why a node stays in `float32`.
fn reason(node: &NodeProto, seen: &Seen, named: &BTreeSet<String>) -> Option<&'static str> {
    if node.output.first().is_some_and(|output| named.contains(output)) {
        return Some("it was named");
    }
    if !matches!(node.domain(), "" | "ai.onnx") {
        return Some("its operator is not of the standard");
    }
    if IN_FLOAT.contains(&node.op_type()) {
        return Some("its operator is not defined for float16");
    }
    // An infinite mask stays infinite.
    let beyond =
        |value: &String| seen.get(value).is_some_and(|most| *most > MOST && most.is_finite());
    let mut values = node.input.iter().chain(&node.output);
    values.any(beyond).then_some("float16 cannot hold its numbers")
}

struct Work<'w> {
    seen: &'w Seen,
    /// The other form of a value, once a cast makes it: by the value and whether it is `float16`.
    casts: BTreeMap<(String, bool), String>,
    halves: BTreeSet<NodeId>,
}

impl Work<'_> {
    fn convert(&mut self, graph: &mut Graph) -> Result<(), OnnxError> {
        let order = graph.order()?;
        let made_half = |graph: &Graph, halves: &BTreeSet<NodeId>, value: &str| {
            graph.maker(value).is_some_and(|maker| halves.contains(&maker))
        };
        for id in order {
            let wants_half = self.halves.contains(&id);
            let inputs = graph.node(id).input.clone();
            for input in inputs.iter().filter(|input| self.seen.contains_key(*input)) {
                let is_half = made_half(graph, &self.halves, input);
                if is_half != wants_half {
                    let other = self.other(graph, input, wants_half)?;
                    graph.reroute_in(id, input, &other);
                }
            }
            if wants_half {
                graph.edit(id, retype)?;
            }
        }
        let outputs: Vec<String> =
            graph.outputs().iter().map(|output| output.name().to_owned()).collect();
        for output in outputs.iter().filter(|output| self.seen.contains_key(*output)) {
            if made_half(graph, &self.halves, output) {
                self.give_out(graph, output)?;
            }
        }
        Ok(())
    }

    /// A value in its other form: weights are converted now, all else by a cast.
    fn other(&mut self, graph: &mut Graph, value: &str, half: bool) -> Result<String, OnnxError> {
        let key = (value.to_owned(), half);
        if let Some(name) = self.casts.get(&key) {
            return Ok(name.clone());
        }
        let name = graph.fresh(&format!("{value}_{}", if half { "half" } else { "float" }));
        match graph.constant(value).cloned() {
            Some(weight) if half => {
                let values = tensor::f32s(&weight)?;
                graph.set_weight(tensor::new(&name, &weight.dims, &tensor::halves_of(&values)));
            }
            _ => {
                let to = if half { tensor::element::FLOAT16 } else { tensor::element::FLOAT };
                graph.insert(node("Cast", &[value], &[&name]).with_int("to", to.into()))?;
            }
        }
        self.casts.insert(key, name.clone());
        Ok(name)
    }

    /// Gives an output that is made in `float16` in `float32`, under its own name.
    fn give_out(&mut self, graph: &mut Graph, output: &str) -> Result<(), OnnxError> {
        let half = graph.fresh(&format!("{output}_half"));
        let Some(maker) = graph.maker(output) else { return Ok(()) };
        let readers: Vec<NodeId> = graph.readers(output).collect();
        for reader in readers {
            graph.reroute_in(reader, output, &half);
        }
        graph.edit(maker, |node| {
            node.output.iter_mut().filter(|name| *name == output).for_each(|n| n.clone_from(&half));
        })?;
        let to = tensor::element::FLOAT.into();
        graph.insert(node("Cast", &[&half], &[output]).with_int("to", to))?;
        Ok(())
    }
}

/// Types in a node's attributes: a cast to `float32` becomes one to `float16`, and so do constant numbers.
fn retype(node: &mut NodeProto) {
    let float = i64::from(tensor::element::FLOAT);
    for name in ["to", "dtype"] {
        if node.int(name) == Some(float) {
            *node = node.clone().with_int(name, tensor::element::FLOAT16.into());
        }
    }
    for attribute in &mut node.attribute {
        let Some(value) = attribute.t.as_mut() else { continue };
        if value.data_type() == tensor::element::FLOAT
            && let Ok(values) = tensor::f32s(value)
        {
            *value = tensor::new(value.name(), &value.dims, &tensor::halves_of(&values));
        }
    }
}
