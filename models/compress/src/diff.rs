//! How one model differs from another: what it takes and gives, its operators, its weights.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use models::onnx::graph::dimensions;
use models::onnx::proto::{NodeProto, TensorProto, ValueInfoProto};
use models::onnx::{Model, tensor};
use serde::Serialize;

use crate::integers;

/// How one model differs from another.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Inputs, outputs and versions that differ: what, before, after.
    pub interface: Vec<(String, String, String)>,
    /// Operators of which there are more or fewer: before, after.
    pub operators: BTreeMap<String, (usize, usize)>,
    /// Numbers in weights: before, after.
    pub parameters: (usize, usize),
    /// Bytes of weights: before, after.
    pub weight_bytes: (usize, usize),
    /// Weights that differ, in the order of the first model; those of one alone at the end.
    pub weights: Vec<Weight>,
    /// Weights that are the same.
    pub same_weights: usize,
    /// Scales and zero points that came with integers; they are not among the weights here.
    pub grids: usize,
}

/// Weights that differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weight {
    /// Their name.
    pub name: String,
    /// Type and shape before, if they were there.
    pub before: Option<String>,
    /// Type and shape after, if they are there.
    pub after: Option<String>,
    /// For floats of the same shape, and for those that integers stand for: the length of the difference, as a share of the
    /// length before.
    pub distance: Option<f64>,
}

impl Diff {
    /// Whether nothing differs that is looked at.
    pub fn is_empty(&self) -> bool {
        self.interface.is_empty() && self.operators.is_empty() && self.weights.is_empty()
    }
}

/// Compares two models. Values inside graphs are not compared: names differ where nothing else does.
pub fn diff(before: &Model, after: &Model) -> Diff {
    let mut diff = Diff { interface: interface(before, after), ..Diff::default() };
    let (a, b) = (operators(before), operators(after));
    for op in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let count = |all: &BTreeMap<String, usize>| all.get(op).copied().unwrap_or(0);
        if count(&a) != count(&b) {
            diff.operators.insert(op.clone(), (count(&a), count(&b)));
        }
    }
    let (a, b) = (sums(before), sums(after));
    (diff.parameters, diff.weight_bytes) = ((a.0, b.0), (a.1, b.1));
    let integers = integers::all(after.graph());
    let mut matched = BTreeSet::new();
    for weight in before.graph().weights() {
        match after.graph().weight(weight.name()) {
            Some(other) if is_same(weight, other) => diff.same_weights += 1,
            Some(other) => diff.weights.push(change(Some(weight), Some(other))),
            None => {
                let found = rounded(weight, after, &integers);
                matched.extend(found.iter().map(|(name, _)| name.clone()));
                let weight = found.map_or_else(|| change(Some(weight), None), |(_, change)| change);
                diff.weights.push(weight);
            }
        }
    }
    let is_new = |name: &str| before.graph().weight(name).is_none() && !matched.contains(name);
    for weight in after.graph().weights().filter(|weight| is_new(weight.name())) {
        match integers::is_grid(after.graph(), weight.name()) {
            true => diff.grids += 1,
            false => diff.weights.push(change(None, Some(weight))),
        }
    }
    diff
}

/// The integers that some floats became, by their name: it begins with that of the floats, and the shape is the same.
fn rounded(
    floats: &TensorProto,
    after: &Model,
    integers: &HashMap<&str, &NodeProto>,
) -> Option<(String, Weight)> {
    let mut found: Option<(&TensorProto, &NodeProto)> = None;
    for (name, node) in integers {
        let begins = name.strip_prefix(floats.name()).is_some_and(|rest| rest.starts_with('_'));
        let weight = after.graph().weight(name);
        let Some(weight) = weight.filter(|weight| begins && weight.dims == floats.dims) else {
            continue;
        };
        // The shortest: the name of other weights may begin with this one's.
        if found.is_none_or(|(other, _)| weight.name().len() < other.name().len()) {
            found = Some((weight, node));
        }
    }
    let (weight, node) = found?;
    let mut change = change(Some(floats), Some(weight));
    let before = tensor::f32s(floats).ok()?;
    change.distance = integers::floats(after.graph(), node).and_then(|now| apart(&before, &now));
    Some((weight.name().to_owned(), change))
}

fn interface(before: &Model, after: &Model) -> Vec<(String, String, String)> {
    let mut all: BTreeMap<String, [String; 2]> = BTreeMap::new();
    for (index, model) in [before, after].into_iter().enumerate() {
        let value = |info: &ValueInfoProto| match info.r#type.as_ref().and_then(dimensions) {
            Some((element, shape)) => format!("{} {shape:?}", tensor::element::name(element)),
            None => "of unknown type".to_owned(),
        };
        let graph = model.graph();
        let inputs = graph.required_inputs().map(|i| (format!("input {}", i.name()), value(i)));
        let outputs = graph.outputs().iter().map(|o| (format!("output {}", o.name()), value(o)));
        let sets = model.head().opset_import.iter().map(|set| {
            let domain = if set.domain().is_empty() { "ai.onnx" } else { set.domain() };
            (format!("opset {domain}"), set.version().to_string())
        });
        for (what, says) in inputs.chain(outputs).chain(sets) {
            all.entry(what).or_insert_with(|| ["-".to_owned(), "-".to_owned()])[index] = says;
        }
    }
    let differing = all.into_iter().filter(|(_, [a, b])| a != b);
    differing.map(|(what, [a, b])| (what, a, b)).collect()
}

fn operators(model: &Model) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, node) in model.graph().nodes() {
        *counts.entry(crate::inspect::qualified(node)).or_default() += 1;
    }
    counts
}

fn sums(model: &Model) -> (usize, usize) {
    let (mut parameters, mut bytes) = (0, 0);
    for weight in model.graph().weights() {
        parameters += tensor::elements(&weight.dims).unwrap_or(0);
        bytes += tensor::size_bytes(weight).unwrap_or(0);
    }
    (parameters, bytes)
}

fn is_same(a: &TensorProto, b: &TensorProto) -> bool {
    let alike = (a.data_type(), &a.dims) == (b.data_type(), &b.dims);
    // The same numbers may lie in raw bytes or in a list.
    let floats = || Some(tensor::f32s(a).ok()? == tensor::f32s(b).ok()?);
    let integers = || Some(tensor::i64s(a).ok()? == tensor::i64s(b).ok()?);
    alike
        && (a.raw_data == b.raw_data && a.raw_data.is_some()
            || floats().or_else(integers) == Some(true))
}

fn change(before: Option<&TensorProto>, after: Option<&TensorProto>) -> Weight {
    let describe =
        |w: &TensorProto| format!("{} {:?}", tensor::element::name(w.data_type()), w.dims);
    let distance = || {
        let (a, b) = (before?, after?);
        let (x, y) = (tensor::f32s(a).ok()?, tensor::f32s(b).ok()?);
        if a.dims == b.dims { apart(&x, &y) } else { None }
    };
    let name = before.or(after).map(|w| w.name().to_owned()).unwrap_or_default();
    Weight { name, before: before.map(describe), after: after.map(describe), distance: distance() }
}

/// The length of a difference, as a share of the length before.
fn apart(before: &[f32], after: &[f32]) -> Option<f64> {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let moved = squares(&mut before.iter().zip(after).map(|(x, y)| f64::from(x - y)));
    let whole = squares(&mut before.iter().map(|x| f64::from(*x))).max(f64::MIN_POSITIVE);
    (before.len() == after.len()).then(|| (moved / whole).sqrt())
}
