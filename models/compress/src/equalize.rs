//! Evens out the channels of activations before they get one scale for all.
//!
//! A channel that reaches to 50 beside others that reach to 1 leaves those five of 255 levels. So channel `c` is divided by
//! a factor, and the weights that read it are multiplied by the same: nothing changes but for rounding.
//!
//! - Between convolutions the factor goes into the weights that make the channel, through activation functions that keep
//!   factors (Nagel et al., Data-Free Quantization, 2019); a depthwise convolution has a scale for each channel, so it pays
//!   nothing for it. A clip keeps factors up to what was seen of the channel: static integers end there as well.
//! - In front of matrix products the input is multiplied by a vector first (Xiao et al., SmoothQuant, 2023). That is a node
//!   more, so it is done only where it makes the expected error much smaller.

use std::collections::{BTreeMap, BTreeSet};

use models::backend::Backend;
use models::numbers;
use models::onnx::attribute::{Attributes, node};
use models::onnx::graph::is_op;
use models::onnx::{Graph, Model, NodeId, tensor};
use protocol::tensor::Tensor;

use crate::calibrate::{together, watch};
use crate::error::CompressError;
use crate::measure::Items;

/// How much of the burden the weights take: of these the best for each layer.
const SHARES: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
/// A node more must make the expected squared error that much smaller.
const WORTH: f64 = 0.6;

/// Which layers are evened out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Between {
    /// Convolution and convolution: for static integers.
    Convolutions,
    /// The inputs of matrix products: for products that measure their inputs at run time.
    Products,
}

/// What was seen of each channel.
#[derive(Debug, Clone, Default)]
struct Reach {
    most: Vec<f64>,
    /// Means of squares.
    squares: Vec<f64>,
    /// How many numbers each channel had.
    count: usize,
}

impl Reach {
    /// Looks at an output; without an axis channels are the last one.
    fn add(&mut self, output: &Tensor, axis: Option<usize>) {
        let Some(numbers) = numbers::floats(output) else { return };
        let shape = output.shape();
        let axis = axis.unwrap_or(shape.len().saturating_sub(1));
        let Some(Ok(count)) = shape.get(axis).map(|size| usize::try_from(*size)) else { return };
        let inner = tensor::elements(&shape[axis + 1..]).unwrap_or(1).max(1);
        self.most.resize(count, 0.0);
        self.squares.resize(count, 0.0);
        self.count += numbers.len() / count.max(1);
        for (index, slice) in numbers.chunks(inner).enumerate() {
            let channel = index % count.max(1);
            for value in slice {
                self.most[channel] = self.most[channel].max(f64::from(value.abs()));
                self.squares[channel] += f64::from(*value) * f64::from(*value);
            }
        }
    }
}

/// Layers that read a value with channels along an axis; who makes the channels, for convolutions.
struct Place {
    value: String,
    maker: Option<NodeId>,
    readers: Vec<NodeId>,
}

/// Evens out a folded model; how many values were changed.
///
/// # Errors
/// [`CompressError`].
pub fn equalize(
    model: &mut Model,
    between: Between,
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<usize, CompressError> {
    let places = match between {
        Between::Convolutions => convolutions(model.graph()),
        Between::Products => products(model.graph()),
    };
    if places.is_empty() {
        return Ok(0);
    }
    let values = places.iter().map(|place| place.value.clone()).collect();
    let axis = if between == Between::Convolutions { Some(1) } else { None };
    let seen = reach(model, &values, axis, (items, chosen), backend)?;
    let mut changed = 0;
    for place in &places {
        let Some(reach) = seen.get(&place.value) else { continue };
        if let Some(factors) = factors(model.graph(), place, reach)? {
            apply(model.graph_mut(), place, &factors)?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn own_weight(graph: &Graph, id: NodeId) -> Option<&models::onnx::proto::TensorProto> {
    let name = graph.node(id).input.get(1)?;
    let weight = graph.constant(name)?;
    (weight.data_type() == tensor::element::FLOAT && graph.readers(name).count() == 1)
        .then_some(weight)
}

/// A convolution, functions that keep factors, and a convolution that alone reads what they give.
fn convolutions(graph: &Graph) -> Vec<Place> {
    let mut places = Vec::new();
    for maker in graph.nodes_of("Conv") {
        let Some(made) = own_weight(graph, maker) else { continue };
        let bias = graph.node(maker).input.get(2).filter(|bias| !bias.is_empty());
        let own =
            |bias: &String| graph.constant(bias).is_some() && graph.readers(bias).count() == 1;
        if !bias.is_none_or(own) {
            continue;
        }
        let mut value = graph.node(maker).output[0].clone();
        let reader = loop {
            let Some(next) = graph.sole_reader(&value) else { break None };
            let node = graph.node(next);
            match node.op_type() {
                "Conv" => break Some(next),
                "Relu" | "LeakyRelu" => value.clone_from(&node.output[0]),
                "Clip" if clips_at_zero(graph, next) => value.clone_from(&node.output[0]),
                _ => break None,
            }
        };
        let Some(reader) = reader.filter(|reader| graph.node(*reader).input[0] == value) else {
            continue;
        };
        let Some(read) = own_weight(graph, reader) else { continue };
        let groups = graph.node(reader).int("group").unwrap_or(1);
        let depthwise = groups == made.dims[0] && read.dims.get(1) == Some(&1);
        if groups == 1 || depthwise {
            places.push(Place { value, maker: Some(maker), readers: vec![reader] });
        }
    }
    places
}

fn clips_at_zero(graph: &Graph, clip: NodeId) -> bool {
    let low = graph.node(clip).input.get(1).and_then(|low| graph.constant(low));
    low.is_some_and(|low| tensor::f32s(low).is_ok_and(|low| low.as_ref() == [0.0]))
}

/// Values that matrix products with weights of their own read.
fn products(graph: &Graph) -> Vec<Place> {
    let mut readers: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for id in graph.nodes_of("MatMul") {
        let matrix = own_weight(graph, id).is_some_and(|weight| weight.dims.len() == 2);
        let input = &graph.node(id).input[0];
        if matrix && graph.weight(input).is_none() && !graph.is_input(input) {
            readers.entry(input.clone()).or_default().push(id);
        }
    }
    readers.into_iter().map(|(value, readers)| Place { value, maker: None, readers }).collect()
}

/// Runs the model and looks at each channel; without an axis it is the last.
fn reach(
    model: &Model,
    values: &BTreeSet<String>,
    axis: Option<usize>,
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<BTreeMap<String, Reach>, CompressError> {
    let values: Vec<String> = values.iter().cloned().collect();
    let mut seen: BTreeMap<String, Reach> = BTreeMap::new();
    let first = chosen.first().copied().unwrap_or(0);
    for some in together(model, &values, &items(first)?, backend)? {
        let mut session = watch(model, &some, backend)?;
        for &item in chosen {
            let outputs = session.run(&items(item)?, &[]);
            for output in outputs.map_err(|source| CompressError::Run { item, source })? {
                seen.entry(output.name().to_owned()).or_default().add(&output, axis);
            }
        }
    }
    for reach in seen.values_mut() {
        let count = reach.count.max(1) as f64;
        reach.squares.iter_mut().for_each(|sum| *sum /= count);
    }
    Ok(seen)
}

/// The weights that read channels.
struct Reading {
    /// For each output, the largest weight of each channel.
    largest: Vec<Vec<f64>>,
    depthwise: bool,
}

fn reading(graph: &Graph, place: &Place) -> Result<Option<Reading>, CompressError> {
    let mut largest = Vec::new();
    let mut depthwise = false;
    for reader in &place.readers {
        let Some(weight) = own_weight(graph, *reader) else { return Ok(None) };
        let values = tensor::f32s(weight)?;
        let size = |axis: usize| usize::try_from(weight.dims[axis]).unwrap_or(0);
        if weight.dims.len() == 2 {
            let (inputs, outputs) = (size(0), size(1));
            largest.extend((0..outputs).map(|output| {
                (0..inputs).map(|i| f64::from(values[i * outputs + output].abs())).collect()
            }));
            continue;
        }
        depthwise = graph.node(*reader).int("group").unwrap_or(1) != 1;
        let kernel = tensor::elements(&weight.dims[2..]).unwrap_or(1).max(1);
        let most = |kernel: &[f32]| kernel.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        let rows = values.chunks(kernel * size(1).max(1));
        largest.extend(rows.map(|row| row.chunks(kernel).map(most).collect::<Vec<f64>>()));
    }
    Ok(Some(Reading { largest, depthwise }))
}

/// What each channel is divided by; none where it would not pay.
fn factors(graph: &Graph, place: &Place, reach: &Reach) -> Result<Option<Vec<f32>>, CompressError> {
    let Some(reading) = reading(graph, place)? else { return Ok(None) };
    let widest = reach.most.iter().copied().fold(0.0, f64::max);
    if widest <= 0.0 || !widest.is_finite() {
        return Ok(None);
    }
    let channels = reach.most.len();
    let own: Vec<f64> = match reading.depthwise {
        true => vec![1.0; channels],
        false => (0..channels)
            .map(|c| reading.largest.iter().map(|row| row[c]).fold(0.0, f64::max))
            .collect(),
    };
    let plain = vec![1.0; channels];
    let before = error(&reading, reach, &plain);
    let shares = if reading.depthwise { &SHARES[3..] } else { &SHARES[..] };
    let tries = shares.iter().map(|share| {
        let factor = |(most, own): (&f64, &f64)| {
            let (most, own) = (most.max(widest * 1e-3), own.max(1e-6));
            (most.powf(*share) / own.powf(1.0 - share)).max(1e-12)
        };
        let mut factors: Vec<f64> = reach.most.iter().zip(&own).map(factor).collect();
        // The widest channel stays as wide as it was, so that a clip behind it stays true.
        let after = reach.most.iter().zip(&factors).map(|(m, f)| m / f).fold(0.0, f64::max);
        factors.iter_mut().for_each(|factor| *factor *= after / widest);
        (error(&reading, reach, &factors), factors)
    });
    let best = tries.min_by(|a, b| a.0.total_cmp(&b.0));
    let worth = if place.maker.is_some() { 1.0 } else { WORTH };
    #[allow(clippy::cast_possible_truncation)] // kept as f32
    let kept = best.filter(|(after, _)| *after < before * worth);
    #[allow(clippy::cast_possible_truncation)] // kept as f32
    Ok(kept.map(|(_, factors)| factors.into_iter().map(|factor| factor as f32).collect()))
}

/// The squared error that rounding inputs and weights is expected to make, but for a constant.
fn error(reading: &Reading, reach: &Reach, factors: &[f64]) -> f64 {
    let widest = reach.most.iter().zip(factors).map(|(m, f)| m / f).fold(0.0, f64::max);
    let step = (widest / 255.0).powi(2);
    if reading.depthwise {
        // Each channel has weights and a scale of its own: only the inputs share one.
        let each = reading.largest.iter().flatten().zip(factors);
        return step * each.map(|(weight, factor)| (weight * factor).powi(2)).sum::<f64>();
    }
    let energy: f64 = reach.squares.iter().zip(factors).map(|(s, f)| s / (f * f)).sum();
    let of = |row: &Vec<f64>| {
        let weights = row.iter().zip(factors).map(|(weight, factor)| weight * factor);
        let (sum, most) = weights.fold((0.0, 0.0f64), |(sum, most), w| (sum + w * w, most.max(w)));
        step * sum + (most / 127.0).powi(2) * energy
    };
    reading.largest.iter().map(of).sum()
}

/// Divides the channels, and multiplies what reads them.
fn apply(graph: &mut Graph, place: &Place, factors: &[f32]) -> Result<(), CompressError> {
    for reader in &place.readers {
        let depthwise = graph.node(*reader).int("group").unwrap_or(1) != 1;
        let is_conv = is_op(graph.node(*reader), "Conv");
        let name = graph.node(*reader).input[1].clone();
        scale(graph, &name, usize::from(is_conv && !depthwise), factors, |w, f| w * f)?;
    }
    let Some(maker) = place.maker else { return divide(graph, place, factors) };
    let inputs = graph.node(maker).input.clone();
    for name in inputs[1..].iter().filter(|name| !name.is_empty()) {
        scale(graph, name, 0, factors, |w, f| w / f)?;
    }
    Ok(())
}

/// Changes weights by the factor of their position along an axis.
fn scale(
    graph: &mut Graph,
    name: &str,
    axis: usize,
    factors: &[f32],
    change: impl Fn(f32, f32) -> f32,
) -> Result<(), CompressError> {
    let Some(weight) = graph.weight(name).cloned() else { return Ok(()) };
    let inner = tensor::elements(&weight.dims[axis + 1..]).unwrap_or(1).max(1);
    let mut values = tensor::f32s(&weight)?.into_owned();
    for (index, slice) in values.chunks_mut(inner).enumerate() {
        let factor = factors[index % factors.len()];
        slice.iter_mut().for_each(|value| *value = change(*value, factor));
    }
    graph.set_weight(tensor::new(name, &weight.dims, &values));
    Ok(())
}

/// Puts a division in front of the products that read a value.
fn divide(graph: &mut Graph, place: &Place, factors: &[f32]) -> Result<(), CompressError> {
    let [vector, even] =
        ["even_by", "even"].map(|end| graph.fresh(&format!("{}_{end}", place.value)));
    let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
    let count = i64::try_from(inverse.len()).unwrap_or(0);
    graph.set_weight(tensor::new(&vector, &[count], &inverse));
    graph.insert(node("Mul", &[&place.value, &vector], &[&even]))?;
    for reader in &place.readers {
        graph.reroute_in(*reader, &place.value, &even);
    }
    Ok(())
}
