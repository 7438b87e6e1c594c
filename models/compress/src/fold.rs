//! Computes now what does not depend on a model's inputs.

use models::backend::Backend;
use models::onnx::Model;
use protocol::tensor::Tensor;

use crate::error::CompressError;
use crate::scratch::Scratch;

mod activation;
mod constants;
mod normalization;
mod padding;

/// The largest difference that folding may make, as a share of an output's largest value. Sums are
/// made in another order, so it is not zero.
pub const TOLERANCE: f64 = 1e-3;

/// What folding removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Folded {
    /// Nodes that became weights.
    pub constants: usize,
    /// Identities and dropouts.
    pub identities: usize,
    /// Paddings that a convolution does itself now.
    pub paddings: usize,
    /// Batch normalizations that are part of the weights before them now.
    pub normalizations: usize,
    /// Activation functions of several nodes that are fewer now.
    #[serde(default)]
    pub activations: usize,
    /// Nodes that nobody read.
    pub dead: usize,
}

/// Folds a model in its place.
///
/// # Errors
/// [`CompressError`].
pub fn fold(model: &mut Model, backend: &dyn Backend) -> Result<Folded, CompressError> {
    let mut folded = Folded {
        constants: constants::fold(model, backend)?,
        identities: identities(model),
        ..Folded::default()
    };
    folded.normalizations = normalization::fold(model.graph_mut())?;
    folded.paddings = padding::fold(model.graph_mut())?;
    folded.activations = activation::fold(model.graph_mut())?;
    folded.dead = model.graph_mut().remove_dead();
    model.raise_to_13()?;
    Ok(folded)
}

/// Computes what only reads weights, and nothing else; how many nodes went.
///
/// # Errors
/// [`CompressError`].
pub fn constants(model: &mut Model, backend: &dyn Backend) -> Result<usize, CompressError> {
    constants::fold(model, backend)
}

/// Takes out what passes its input on.
fn identities(model: &mut Model) -> usize {
    let graph = model.graph_mut();
    let mut removed = 0;
    for id in [graph.nodes_of("Identity"), graph.nodes_of("Dropout")].concat() {
        let node = graph.node(id).clone();
        let (Some(from), Some(to)) = (node.input.first(), node.output.first()) else { continue };
        let trains = node.input.get(2).is_some_and(|mode| !mode.is_empty());
        let mask = node.output.get(1).is_some_and(|mask| graph.readers(mask).next().is_some());
        if trains || mask || node.output.iter().any(|output| graph.is_output(output)) {
            continue;
        }
        graph.reroute(to, from);
        graph.remove(id);
        removed += 1;
    }
    removed
}

/// Compares a folded model with the one it was made from.
///
/// # Errors
/// [`CompressError::Folding`], which should never be.
pub fn verify(
    before: &Model,
    after: &Model,
    inputs: &[Tensor],
    backend: &dyn Backend,
) -> Result<f64, CompressError> {
    let scratch = Scratch::new()?;
    let run = |model: &Model| {
        let answer = scratch.load(model, backend)?.run(inputs, &[]);
        answer.map_err(|source| CompressError::Run { item: 0, source })
    };
    let mut largest = 0.0f64;
    for (old, new) in run(before)?.iter().zip(run(after)?) {
        let numbers = |tensor| models::numbers::to_f64(tensor).unwrap_or_default();
        let (old_values, new_values) = (numbers(old), numbers(&new));
        let scale = old_values.iter().fold(1e-6f64, |most, v| most.max(v.abs()));
        let apart = old_values.iter().zip(&new_values).map(|(a, b)| (a - b).abs() / scale);
        let difference = apart.fold(0.0f64, f64::max);
        let broken = new_values.iter().zip(&old_values).any(|(n, o)| n.is_nan() != o.is_nan());
        if broken || difference > TOLERANCE || old.shape() != new.shape() {
            let (output, tolerance) = (old.name().to_owned(), TOLERANCE);
            return Err(CompressError::Folding { output, difference, tolerance });
        }
        largest = largest.max(difference);
    }
    Ok(largest)
}
