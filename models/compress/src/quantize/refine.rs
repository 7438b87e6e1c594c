//! Weights rounded with a look at the data: each error is made good by the weights that are still to be rounded.
//!
//! [`Rounding::LeastSquares`] takes the inputs of a layer one after the other. What an input's weights lose by rounding
//! goes into those of the inputs behind it, so that the layer's output on calibration samples moves least
//! (`prune::curvature`); the bias takes what is left. Moving single weights to and fro, which is what AdaRound comes to,
//! leaves a fifth more of the squared error, and after this little is left for it to do (0.1 to 5 %; the tests there).
//! [`Rounding::BiasCorrected`] rounds to the nearest and moves only the bias, by the mean error (Nagel et al., Data-Free
//! Quantization, 2019).
//!
//! Both see what the float model reads; they depend on the weights' scales, not on those of activations, so they are
//! computed once for all methods of calibration.

use std::collections::BTreeMap;

use models::backend::Backend;
use models::onnx::graph::is_op;
use models::onnx::{Graph, Model, NodeId, tensor};

use super::blocks::{Blocks, length};
use super::weights::{Integers, greatest, scale};
use super::{Recipe, Rounding, Scheme};
use crate::error::CompressError;
use crate::measure::Items;
use crate::prune::reading::{self, Asked};
use crate::prune::regression::Moments;
use crate::prune::samples::Layer;

/// How much is added to the diagonal, as a share of its mean.
const RIDGE: f64 = 0.01;

/// Rounds a weight of a row and a column, which sees the row as it is by then.
type Round<'r> = dyn FnMut(usize, usize, &[f32], f32) -> f32 + 'r;
/// A bias that takes up what rounding lost: its name and its new numbers.
type Bias = Option<(String, Vec<f32>)>;

/// What was rounded with a look at the data, by the name of the weights.
#[derive(Debug, Clone, Default)]
pub struct Refined {
    rows: BTreeMap<String, (Integers, Bias)>,
    blocks: BTreeMap<String, (Blocks, Bias)>,
}

impl Refined {
    /// The integers of some weights, if they were rounded for these scales; their bias is set.
    pub(super) fn rows(
        &self,
        graph: &mut Graph,
        weight: &str,
        scales: &[f32],
    ) -> Option<&Integers> {
        let (rows, bias) = self.rows.get(weight)?;
        (rows.scales == scales).then(|| set(graph, bias))?;
        Some(rows)
    }

    /// The blocks of some weights, if they were rounded to so many bits; their bias is set.
    pub(super) fn blocks(&self, graph: &mut Graph, weight: &str, bits: u32) -> Option<&Blocks> {
        let (blocks, bias) = self.blocks.get(weight)?;
        (blocks.bits == bits).then(|| set(graph, bias))?;
        Some(blocks)
    }
}

fn set(graph: &mut Graph, bias: &Bias) {
    if let Some((name, values)) = bias {
        let dims = graph.weight(name).map_or_else(Vec::new, |weight| weight.dims.clone());
        graph.set_weight(tensor::new(name, &dims, values));
    }
}

/// Rounds the layers of a folded model as a recipe wants it.
///
/// # Errors
/// [`CompressError`].
pub fn refine(
    model: &Model,
    recipe: &Recipe,
    data: (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<Refined, CompressError> {
    let mut refined = Refined::default();
    if recipe.rounding == Rounding::Nearest || !recipe.per_channel {
        return Ok(refined);
    }
    let ops: &[&str] = match recipe.scheme {
        Scheme::Static => &["Conv", "Gemm", "MatMul"],
        _ => &["Gemm", "MatMul"],
    };
    let layers = reading::layers(model.graph(), ops);
    let asked = match recipe.rounding {
        Rounding::LeastSquares => Asked::Matrices,
        _ => Asked::Means,
    };
    reading::each(model, (&layers, asked), data, backend, &mut |layer, moments| {
        round(&mut refined, model.graph(), layer, moments, recipe)
    })?;
    Ok(refined)
}

/// Rounds one layer.
fn round(
    refined: &mut Refined,
    graph: &Graph,
    layer: &Layer,
    moments: Vec<Moments>,
    recipe: &Recipe,
) -> Result<(), CompressError> {
    let weight = graph.node(layer.node).input[1].clone();
    let Some((rows, own_bias)) = layer.weights(graph) else { return Ok(()) };
    let place = bias_of(graph, layer.node, layer.outputs);
    let bias = match &place {
        Some(name) => graph
            .weight(name)
            .map_or(Ok(own_bias), |bias| tensor::f32s(bias).map(std::borrow::Cow::into_owned))?,
        None => own_bias,
    };
    let parts = Parts { layer, rows: &rows, bias: &bias, recipe, has_bias: place.is_some() };
    let moved = |bias: Vec<f32>| place.clone().map(|name| (name, bias));
    match recipe.scheme {
        Scheme::Static | Scheme::Dynamic => {
            if let Some((found, bias)) = parts.in_rows(moments) {
                let values = layer.in_place(graph, &found.values);
                let rows = Integers { values, scales: found.scales };
                refined.rows.insert(weight, (rows, moved(bias)));
            }
        }
        Scheme::Int8Weights | Scheme::Int4Weights => {
            if let Some((blocks, bias)) = parts.in_blocks(moments) {
                refined.blocks.insert(weight, (blocks, moved(bias)));
            }
        }
    }
    Ok(())
}

/// The weights that hold a layer's bias: its own, or those that are added to what it gives.
fn bias_of(graph: &Graph, id: NodeId, outputs: usize) -> Option<String> {
    let node = graph.node(id);
    let fits = |name: &String| {
        let weight = graph.constant(name)?;
        let alone = graph.readers(name).count() == 1;
        let float = weight.data_type() == tensor::element::FLOAT;
        let vector = weight.dims.iter().filter(|size| **size != 1).count() <= 1;
        (alone && float && vector && tensor::elements(&weight.dims)? == outputs)
            .then(|| name.clone())
    };
    if let Some(own) = node.input.get(2).filter(|bias| !bias.is_empty()) {
        return fits(own);
    }
    let add = graph.node(graph.sole_reader(node.output.first()?)?);
    let added = is_op(add, "Add") && is_op(node, "MatMul");
    add.input.iter().filter(|_| added).find_map(fits)
}

/// A layer as rows of weights, one for each output.
struct Parts<'p> {
    layer: &'p Layer,
    rows: &'p [f32],
    bias: &'p [f32],
    recipe: &'p Recipe,
    has_bias: bool,
}

impl Parts<'_> {
    /// Integers with a scale for each row, and the bias that goes with them.
    #[allow(clippy::cast_possible_truncation)] // clamped
    fn in_rows(&self, moments: Vec<Moments>) -> Option<(Integers, Vec<f32>)> {
        let most = greatest(self.recipe.narrow);
        let largest = |row: &[f32]| row.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let scales: Vec<f32> =
            self.rows.chunks(self.layer.inputs).map(|row| scale(largest(row), most)).collect();
        let mut values = vec![0i8; self.rows.len()];
        let bias = self.fit(moments, &mut |row, column, _, weight| {
            let step = scales[row];
            let integer = (weight / step).round_ties_even().clamp(-most, most);
            values[row * self.layer.inputs + column] = integer as i8;
            integer * step
        })?;
        Some((Integers { values, scales }, bias))
    }

    fn in_blocks(&self, moments: Vec<Moments>) -> Option<(Blocks, Vec<f32>)> {
        let bits = self.recipe.scheme.bits();
        let mut blocks = Blocks::new(self.layer.outputs, self.layer.inputs, bits);
        let bias = self.fit(moments, &mut |row, column, weights, weight| {
            if column.is_multiple_of(length(bits)) {
                let end = (column + length(bits)).min(self.layer.inputs);
                blocks.open(row, column, &weights[column..end]);
            }
            blocks.round(row, column, weight)
        })?;
        Some((blocks, bias))
    }

    /// Rounds all rows by `round`, which is asked for one weight after the other and sees the row as it is by then; the
    /// bias afterwards.
    fn fit(&self, moments: Vec<Moments>, round: &mut Round<'_>) -> Option<Vec<f32>> {
        let width = self.layer.inputs;
        let rows_each = self.layer.outputs / moments.len().max(1);
        let mut bias = self.bias.to_vec();
        let mut row = 0;
        for (own, mut moments) in bias.chunks_mut(rows_each.max(1)).zip(moments) {
            if moments.samples() == 0 {
                return None;
            }
            let means = moments.means();
            let fitted = match self.recipe.rounding {
                Rounding::LeastSquares => {
                    let curvature = moments.curvature(RIDGE, self.has_bias);
                    Some((curvature.successors()?, curvature))
                }
                _ => None,
            };
            for bias in own {
                let mut weights = self.rows[row * width..][..width].to_vec();
                weights.push(*bias);
                let mut round = |column: usize, weights: &[f32], weight: f32| {
                    round(row, column, weights, weight)
                };
                match &fitted {
                    Some((successors, curvature)) => {
                        let before = weights.clone();
                        let mut settle = |column: usize, weights: &[f32]| match column < width {
                            true => round(column, weights, kept(before[column], weights[column])),
                            false => weights[column],
                        };
                        curvature.pass_on(&mut weights, successors, &mut settle);
                    }
                    None => weights[width] += mean_error(&weights, &means, &mut round),
                }
                *bias = weights[width];
                row += 1;
            }
        }
        Some(bias)
    }
}

/// A weight that was nothing stays nothing: zeros of a pruned model are worth more than their errors.
fn kept(before: f32, weight: f32) -> f32 {
    if before == 0.0 { 0.0 } else { weight }
}

/// What rounding takes from the output in the mean.
#[allow(clippy::cast_possible_truncation)] // kept as f32
fn mean_error(
    weights: &[f32],
    means: &[f64],
    round: &mut impl FnMut(usize, &[f32], f32) -> f32,
) -> f32 {
    let lost = |(column, mean): (usize, &f64)| {
        let weight = weights[column];
        f64::from(weight - round(column, weights, weight)) * mean
    };
    means.iter().enumerate().map(lost).sum::<f64>() as f32
}
