//! Writes a plan into a graph.

use std::collections::BTreeMap;

use models::onnx::attribute::{Attributes, node};
use models::onnx::{Graph, OnnxError, tensor};

use super::Recipe;
use super::plan::{Plan, Planned};
use super::refine::Refined;
use super::weights::{Channels, Integers, greatest, scale};
use crate::calibrate::Seen;
use crate::error::CompressError;
use crate::histogram::Range;

/// A bias must stay that far inside `int32`.
const BIAS_MAX: f32 = 1_073_741_824.0;

/// Scale and zero point of a value.
#[derive(Debug, Clone)]
struct Grid {
    scale: f32,
    /// Names of the weights that hold them.
    names: [String; 2],
}

pub(super) fn emit(
    graph: &mut Graph,
    plan: &Plan,
    (seen, refined): (&Seen, &Refined),
    recipe: &Recipe,
) -> Result<(), CompressError> {
    let mut grids: BTreeMap<String, Grid> = BTreeMap::new();
    for root in plan.measured() {
        let absent = || CompressError::NotANumber(root.clone());
        let range = seen.get(&root).ok_or_else(absent)?.range(recipe.method);
        let grid = grid(graph, &root, range, recipe.signed);
        grids.insert(root, grid);
    }
    let of = |value: &str| plan.values.get(value).and_then(|root| grids.get(root));
    for planned in &plan.nodes {
        let input = graph.node(planned.node).input.first().cloned().unwrap_or_default();
        if let (Some(axis), Some(grid)) = (planned.axis, of(&input)) {
            weights(graph, planned, axis, grid.scale, (refined, recipe))?;
        }
    }
    for value in plan.values.keys() {
        if let Some(grid) = of(value) {
            pair(graph, value, grid)?;
        }
    }
    Ok(())
}

/// The scale reaches at most to the range's ends: then a Relu or Clip before it changes nothing any more.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 255
fn grid(graph: &mut Graph, root: &str, range: Range, signed: bool) -> Grid {
    let mut step = range.width() / 255.0;
    while step * 255.0 > range.width() {
        step = step.next_down();
    }
    let step = if step.is_normal() { step } else { 1.0 };
    let zero = (-range.low / step).round().clamp(0.0, 255.0) as u8;
    let names = [graph.fresh(&format!("{root}_scale")), graph.fresh(&format!("{root}_zero"))];
    graph.set_weight(tensor::new(&names[0], &[], &[step]));
    let zero_point = match signed {
        true => tensor::new(&names[1], &[], &[(i16::from(zero) - 128) as i8]),
        false => tensor::new(&names[1], &[], &[zero]),
    };
    graph.set_weight(zero_point);
    Grid { scale: step, names }
}

/// Sends everything that reads a value through integers.
fn pair(graph: &mut Graph, value: &str, grid: &Grid) -> Result<(), OnnxError> {
    let [scale, zero] = &grid.names;
    let integers = graph.fresh(&format!("{value}_q"));
    let floats = graph.fresh(&format!("{value}_dq"));
    let nodes = [
        node("QuantizeLinear", &[value, scale, zero], &[&integers]),
        node("DequantizeLinear", &[&integers, scale, zero], &[&floats]),
    ];
    graph.insert_after(value, nodes, &floats)
}

/// Makes a node read its weights and its bias from integers.
fn weights(
    graph: &mut Graph,
    planned: &Planned,
    axis: usize,
    input_scale: f32,
    (refined, recipe): (&Refined, &Recipe),
) -> Result<(), CompressError> {
    let (weight, bias) = {
        let node = graph.node(planned.node);
        (node.input[1].clone(), node.input.get(2).filter(|bias| !bias.is_empty()).cloned())
    };
    let Some(floats) = graph.weight(&weight).cloned() else { return Ok(()) };
    let channels = Channels::of(&floats, recipe.per_channel.then_some(axis))?;
    let most = greatest(recipe.narrow);
    let mut scales: Vec<f32> = channels.largest().iter().map(|l| scale(*l, most)).collect();
    let rounded = refined.rows(graph, &weight, &scales).cloned();
    let bias_values = match bias.as_ref().and_then(|bias| graph.weight(bias)) {
        Some(bias) => Some(tensor::f32s(bias)?.into_owned()),
        None => None,
    };
    if let Some(values) = &bias_values {
        widen_for_bias(&mut scales, values, input_scale);
    }
    let integers = match rounded.filter(|rounded| rounded.scales == scales) {
        Some(rounded) => rounded,
        None => channels.round(scales, most),
    };
    let read = weight_integers(graph, &weight, &floats.dims, (axis, recipe), &integers)?;
    graph.edit(planned.node, |node| node.input[1] = read)?;
    if let (Some(name), Some(values)) = (bias, bias_values) {
        let read = bias_integers(graph, &name, &values, &integers.scales, input_scale)?;
        graph.edit(planned.node, |node| node.input[2] = read)?;
    }
    Ok(())
}

/// A channel whose weights are nearly zero has a tiny scale, in which its bias would not fit `int32`; a wider one
/// costs such weights nothing that counts.
fn widen_for_bias(scales: &mut [f32], bias: &[f32], input_scale: f32) {
    let count = scales.len();
    for (index, value) in bias.iter().enumerate() {
        let least = value.abs() / (input_scale * BIAS_MAX);
        let scale = &mut scales[if count == 1 { 0 } else { index.min(count - 1) }];
        *scale = scale.max(least);
    }
}

fn weight_integers(
    graph: &mut Graph,
    weight: &str,
    dims: &[i64],
    (axis, recipe): (usize, &Recipe),
    integers: &Integers,
) -> Result<String, OnnxError> {
    let names = ["q", "scale", "zero", "dq"].map(|end| graph.fresh(&format!("{weight}_{end}")));
    let count = i64::try_from(integers.scales.len()).unwrap_or(0);
    let shape: &[i64] = if recipe.per_channel { &[count] } else { &[] };
    graph.set_weight(tensor::new(&names[0], dims, &integers.values));
    graph.set_weight(tensor::new(&names[1], shape, &integers.scales));
    graph.set_weight(tensor::new(&names[2], shape, &vec![0i8; integers.scales.len()]));
    let read = node("DequantizeLinear", &[&names[0], &names[1], &names[2]], &[&names[3]]);
    let axis = i64::try_from(axis).unwrap_or(0);
    graph.insert(if recipe.per_channel { read.with_int("axis", axis) } else { read })?;
    let [_, _, _, floats] = names;
    Ok(floats)
}

#[allow(clippy::cast_possible_truncation)] // within BIAS_MAX
fn bias_integers(
    graph: &mut Graph,
    bias: &str,
    values: &[f32],
    scales: &[f32],
    input_scale: f32,
) -> Result<String, OnnxError> {
    let names = ["q", "scale", "zero", "dq"].map(|end| graph.fresh(&format!("{bias}_{end}")));
    let per_channel = scales.len() > 1;
    let products: Vec<f32> = scales.iter().map(|scale| scale * input_scale).collect();
    let of = |index: usize| products[if per_channel { index.min(products.len() - 1) } else { 0 }];
    let round = |(index, value): (usize, &f32)| {
        (f64::from(*value) / f64::from(of(index))).round_ties_even() as i32
    };
    let integers: Vec<i32> = values.iter().enumerate().map(round).collect();
    let length = i64::try_from(values.len()).unwrap_or(0);
    let shape: &[i64] = if per_channel { &[length] } else { &[] };
    graph.set_weight(tensor::new(&names[0], &[length], &integers));
    graph.set_weight(tensor::new(&names[1], shape, &products));
    graph.set_weight(tensor::new(&names[2], shape, &vec![0i32; products.len()]));
    let read = node("DequantizeLinear", &[&names[0], &names[1], &names[2]], &[&names[3]]);
    graph.insert(if per_channel { read.with_int("axis", 0) } else { read })?;
    let [_, _, _, floats] = names;
    Ok(floats)
}
