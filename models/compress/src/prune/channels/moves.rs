//! Operators without weights of their own: how they move the axis of the channels.

use models::onnx::NodeId;
use models::onnx::attribute::Attributes;
use models::onnx::proto::NodeProto;
use models::onnx::tensor;

use super::{Layout, Part, Reshaped, Walk, common};

/// Operators that work on each number by itself.
const EACH: [&str; 24] = [
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Erf",
    "Elu",
    "Selu",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Exp",
    "Log",
    "Abs",
    "Neg",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Identity",
    "Dropout",
    "Gelu",
    "Mish",
];
/// Operators that work on pairs of numbers.
const PAIRS: [&str; 8] = ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"];
/// Operators that work on the space behind the channels of images.
const SPATIAL: [&str; 5] =
    ["AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"];
const REDUCING: [&str; 4] = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"];

impl Walk<'_> {
    /// Moves the layouts through a node; false where it is not known how.
    pub(super) fn moved(&mut self, id: NodeId, node: &NodeProto) -> bool {
        if node.input.iter().all(|input| !self.layouts.contains_key(input)) {
            return true;
        }
        let op = node.op_type();
        let first = node.input.first().and_then(|input| self.layouts.get(input)).cloned();
        match (op, first) {
            (op, _) if PAIRS.contains(&op) => self.pair(node),
            ("BatchNormalization", Some(layout)) => self.normalization(node, layout),
            ("Concat", _) => self.joined(node),
            (op, Some(layout)) if EACH.contains(&op) => self.passed(node, layout),
            (op, Some(layout)) if SPATIAL.contains(&op) => {
                layout.axis == 1 && self.passed(node, layout)
            }
            ("Resize", Some(layout)) => {
                let by_sizes = node.input.get(3).is_some_and(|sizes| !sizes.is_empty());
                !by_sizes && layout.axis == 1 && self.passed(node, layout)
            }
            (op, Some(layout)) if REDUCING.contains(&op) => self.reduced(node, layout),
            ("Softmax" | "LogSoftmax", Some(layout)) => {
                let rank = self.rank(node).unwrap_or(0);
                let axis = axis(node.int("axis").unwrap_or(-1), rank);
                axis.is_some_and(|axis| axis != layout.axis) && self.passed(node, layout)
            }
            ("Flatten" | "Reshape" | "Squeeze" | "Unsqueeze", Some(layout)) => {
                self.reshaped(id, node, &layout)
            }
            ("Shape", Some(layout)) => self.measured(node, &layout),
            ("Transpose", Some(layout)) => {
                let Some(to) = node.ints("perm").and_then(|perm| position(perm, layout.axis))
                else {
                    return false;
                };
                self.passed(node, Layout { axis: to, ..layout })
            }
            _ => false,
        }
    }

    fn passed(&mut self, node: &NodeProto, layout: Layout) -> bool {
        // What else it reads must not have channels.
        let alone = node.input[1..].iter().all(|input| !self.layouts.contains_key(input));
        if alone {
            self.set(node.output.first(), layout);
        }
        alone
    }

    pub(super) fn rank(&self, node: &NodeProto) -> Option<usize> {
        self.shape(node.output.first()?).map(|shape| shape.len())
    }

    fn normalization(&mut self, node: &NodeProto, layout: Layout) -> bool {
        let constant = |input: &String| self.graph.constant(input).is_some();
        if layout.axis != 1 || !node.input[1..].iter().all(constant) {
            return false;
        }
        node.input[1..].iter().for_each(|weight| self.cut(weight, 0, &layout.parts));
        self.passed(node, layout)
    }

    /// Two operands, one of which may be spread over the other.
    fn pair(&mut self, node: &NodeProto) -> bool {
        let Some(rank) = self.rank(node) else { return false };
        let mut found: Option<Layout> = None;
        for input in &node.input {
            let Some(layout) = self.layouts.get(input).cloned() else { continue };
            let Some(shape) = self.shape(input) else { return false };
            let Some(axis) = (layout.axis + rank).checked_sub(shape.len()) else { return false };
            let layout = Layout { axis, ..layout };
            match &found {
                Some(other) if other.axis == layout.axis => {
                    if !self.unite(&other.clone(), &layout) {
                        return false;
                    }
                }
                Some(_) => return false,
                None => found = Some(layout),
            }
        }
        let Some(layout) = found else { return true };
        let positions: usize = layout.parts.iter().map(|part| part.positions).sum();
        for input in &node.input {
            if self.layouts.contains_key(input) {
                continue;
            }
            let Some(shape) = self.shape(input) else { return false };
            let Some(axis) = (layout.axis + shape.len()).checked_sub(rank) else { continue };
            match shape.get(axis) {
                Some(1) | None => {}
                Some(size) if *size == positions && self.graph.constant(input).is_some() => {
                    self.cut(input, axis, &layout.parts);
                }
                Some(_) => return false,
            }
        }
        self.set(node.output.first(), layout);
        true
    }

    fn joined(&mut self, node: &NodeProto) -> bool {
        let Some(rank) = self.rank(node) else { return false };
        let Some(along) = node.int("axis").and_then(|a| axis(a, rank)) else { return false };
        let layouts: Vec<Option<Layout>> =
            node.input.iter().map(|input| self.layouts.get(input).cloned()).collect();
        let own = layouts.iter().flatten().map(|layout| layout.axis).next().unwrap_or(0);
        if layouts.iter().flatten().any(|layout| layout.axis != own) {
            return false;
        }
        let mut parts: Vec<Part> = Vec::new();
        for (input, layout) in node.input.iter().zip(layouts) {
            match (layout, parts.is_empty() || own == along) {
                (Some(layout), true) => parts.extend(layout.parts),
                (Some(layout), false) => {
                    if !self.unite(&Layout { axis: own, parts: parts.clone() }, &layout) {
                        return false;
                    }
                }
                (None, _) if own == along => {
                    let Some(size) = self.shape(input).and_then(|shape| shape.get(along).copied())
                    else {
                        return false;
                    };
                    let group = self.channels.add(size);
                    self.channels.groups[group].fixed = Some("they come from elsewhere");
                    parts.push(Part { group, repeat: 1, per: 1, positions: size });
                }
                (None, _) => return false,
            }
        }
        self.set(node.output.first(), Layout { axis: own, parts });
        true
    }

    fn reduced(&mut self, node: &NodeProto, layout: Layout) -> bool {
        let Some(shape) = self.shape(&node.input[0]) else { return false };
        let given = node.ints("axes").map(<[i64]>::to_vec).or_else(|| {
            let weight = self.graph.constant(node.input.get(1)?)?;
            tensor::i64s(weight).ok().map(std::borrow::Cow::into_owned)
        });
        let Some(axes) = given else { return false };
        let axes: Vec<usize> = axes.iter().filter_map(|a| axis(*a, shape.len())).collect();
        if axes.contains(&layout.axis) {
            return false;
        }
        let before = axes.iter().filter(|axis| **axis < layout.axis).count();
        let gone = if node.int("keepdims").unwrap_or(1) != 0 { 0 } else { before };
        self.passed(node, Layout { axis: layout.axis - gone, ..layout })
    }

    /// A number of a reshape's target, and whether all of the target is constant.
    fn target(&self, node: &NodeProto, index: usize) -> Option<(i64, bool)> {
        let name = node.input.get(1)?;
        let numbers = |name: &String| tensor::i64s(self.graph.constant(name)?).ok();
        if let Some(target) = numbers(name) {
            return Some((*target.get(index)?, true));
        }
        // As exports do it: the batch from a shape, joined with numbers.
        let joined = self.graph.node(self.graph.maker(name)?);
        let single = |input: &String| self.shape(input).is_some_and(|shape| shape == [1]);
        let known = joined.op_type() == "Concat" && joined.input.iter().all(single);
        let number = numbers(joined.input.get(index).filter(|_| known)?)?;
        Some((*number.first()?, false))
    }

    /// Sizes other than the channels' may be asked for.
    fn measured(&self, node: &NodeProto, layout: &Layout) -> bool {
        let Some(output) = node.output.first() else { return false };
        self.graph.readers(output).all(|id| {
            let reader = self.graph.node(id);
            let index = reader.input.get(1).and_then(|index| self.graph.constant(index));
            let Some(Ok(indices)) = index.map(tensor::i64s) else { return false };
            reader.op_type() == "Gather"
                && indices
                    .iter()
                    .all(|index| *index >= 0 && usize::try_from(*index) != Ok(layout.axis))
        })
    }

    /// Whatever keeps the order of numbers: the axis is found again by how many numbers lie before it.
    fn reshaped(&mut self, id: NodeId, node: &NodeProto, layout: &Layout) -> bool {
        let shape = |value: Option<&String>| value.and_then(|value| self.shape(value));
        let (from, to) = (shape(node.input.first()), shape(node.output.first()));
        let (Some(from), Some(to)) = (from, to) else { return false };
        if from.len() <= layout.axis || from.iter().chain(&to).any(|size| *size == 0) {
            return false;
        }
        let [part] = layout.parts[..] else { return false };
        let before: usize = from[..layout.axis].iter().product();
        let own = from[layout.axis];
        let Some(at) = (0..to.len())
            .find(|j| to[..*j].iter().product::<usize>() == before && (to[*j] > 1 || own == 1))
        else {
            return false;
        };
        let moved = match (to[at], own) {
            (new, own) if new == own => Some(part),
            (new, own) if new % own == 0 => merged(part, new / own),
            (new, own) if own % new == 0 => split(part, own / new),
            _ => None,
        };
        let Some(moved) = moved.map(|part| Part { positions: to[at], ..part }) else {
            return false;
        };
        let root = self.channels.root(moved.group);
        self.channels.groups[root].unit = common(self.channels.groups[root].unit, moved.per);
        if node.op_type() == "Reshape" {
            let Some((size, is_constant)) = self.target(node, at) else { return false };
            if size > 0 && !is_constant {
                return false;
            }
            if size > 0 {
                let parts = vec![moved];
                self.channels.reshaped.push(Reshaped { node: id, index: at, parts });
            }
        }
        self.passed(node, Layout { axis: at, parts: vec![moved] })
    }
}

/// The part when so many positions behind it become part of its axis.
fn merged(part: Part, times: usize) -> Option<Part> {
    match part.per % times {
        0 => Some(Part { per: part.per / times, ..part }),
        _ if part.per == 1 => Some(Part { repeat: part.repeat * times, ..part }),
        _ => None,
    }
}

/// The part when so many positions of it become an axis behind.
fn split(part: Part, times: usize) -> Option<Part> {
    match part.repeat % times {
        0 => Some(Part { repeat: part.repeat / times, ..part }),
        _ if part.repeat == 1 => Some(Part { per: part.per * times, ..part }),
        _ => None,
    }
}

fn axis(given: i64, rank: usize) -> Option<usize> {
    let size = i64::try_from(rank).ok()?;
    usize::try_from(if given < 0 { given + size } else { given }).ok().filter(|axis| *axis < rank)
}

fn position(perm: &[i64], axis: usize) -> Option<usize> {
    perm.iter().position(|from| usize::try_from(*from) == Ok(axis))
}
