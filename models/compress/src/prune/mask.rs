//! Zeros in the place of the weights that matter least: the file is as long and the model as fast as before, but what has
//! to be sent of it is much less, for whoever sends it compressed.
//!
//! Every output of a layer gives up the same share of its weights: those whose size times that of what they read is least
//! (Sun et al., Wanda, 2024), or the smallest ones. The weights that stay are then fitted to what the layer gave before, by
//! the same descent that rounding goes (`Curvature::descend`).

use std::path::Path;

use models::backend::Backend;
use models::onnx::Model;
use serde::Serialize;

use super::curvature::Curvature;
use super::reading::{self, Asked};
use super::regression::Moments;
use super::samples::Layer;
use crate::error::{CompressError, io_error};
use crate::measure::Items;

/// Layers with fewer weights have nothing to give.
const WEIGHTS_MIN: usize = 2048;
/// Outputs of fewer inputs keep them all: depthwise kernels.
const INPUTS_MIN: usize = 16;
/// How often all weights that stay are fitted to each other.
const ROUNDS: usize = 12;
/// How much is added to the diagonal, as a share of its mean.
const RIDGE: f64 = 0.01;
/// How hard a file is pressed before it is sent: the level that is still quick to make.
const LEVEL: i32 = 9;

/// How much goes, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskOptions {
    /// The share of each layer's weights that becomes zero.
    pub share: f64,
    /// Whether the weights that stay are fitted anew; else the smallest go, and that is all.
    pub repair: bool,
}

/// What became of a layer.
#[derive(Debug, Clone, Serialize)]
pub struct MaskedLayer {
    /// Its weights.
    pub weight: String,
    /// How many there are.
    pub weights: usize,
    /// How many of them are zero now.
    pub zeros: usize,
}

/// Puts zeros into a folded model. `chosen` are the items that are sampled.
///
/// # Errors
/// [`CompressError`].
pub fn mask(
    model: &Model,
    options: MaskOptions,
    data: (&Items<'_>, &[usize]),
    backend: &dyn Backend,
    progress: &mut dyn FnMut(&MaskedLayer),
) -> Result<(Model, Vec<MaskedLayer>), CompressError> {
    let (mut masked, mut told) = (model.clone(), Vec::new());
    let large =
        |layer: &Layer| layer.inputs >= INPUTS_MIN && layer.inputs * layer.outputs >= WEIGHTS_MIN;
    let mut layers = reading::layers(model.graph(), &["Conv", "Gemm", "MatMul"]);
    layers.retain(large);
    reading::each(model, (&layers, Asked::Matrices), data, backend, &mut |layer, moments| {
        let graph = model.graph();
        let Some((mut rows, mut bias)) = layer.weights(graph) else { return Ok(()) };
        let has_bias = layer.has_bias(graph);
        let own = (layer.outputs / layer.groups.max(1)).max(1);
        let groups = rows.chunks_mut(own * layer.inputs.max(1)).zip(bias.chunks_mut(own));
        for ((rows, bias), moments) in groups.zip(moments) {
            group(rows, bias, moments, has_bias, options);
        }
        layer.set(masked.graph_mut(), &rows, &bias)?;
        let zeros = rows.iter().filter(|weight| **weight == 0.0).count();
        let weight = graph.node(layer.node).input[1].clone();
        told.push(MaskedLayer { weight, weights: rows.len(), zeros });
        told.last().into_iter().for_each(&mut *progress);
        Ok(())
    })?;
    Ok((masked, told))
}

/// The outputs of one group of channels.
fn group(
    rows: &mut [f32],
    bias: &mut [f32],
    moments: Moments,
    has_bias: bool,
    options: MaskOptions,
) {
    let width = rows.len() / bias.len().max(1);
    if moments.samples() == 0 {
        return;
    }
    let curvature = moments.curvature(RIDGE, has_bias);
    for (row, bias) in rows.chunks_mut(width.max(1)).zip(bias) {
        let stays = stays(row, &curvature, options);
        let mut wanted = row.to_vec();
        wanted.extend(has_bias.then_some(*bias));
        let allowed = |column: usize, weight: f32| match stays.get(column) {
            Some(false) => 0.0,
            _ => weight,
        };
        let mut weights: Vec<f32> =
            wanted.iter().enumerate().map(|(column, weight)| allowed(column, *weight)).collect();
        if options.repair {
            curvature.descend(&mut weights, &wanted, ROUNDS, &mut |c, weight| allowed(c, weight));
        }
        row.copy_from_slice(&weights[..width]);
        if has_bias {
            *bias = weights[width];
        }
    }
}

/// Which weights of an output stay.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
fn stays(row: &[f32], curvature: &Curvature, options: MaskOptions) -> Vec<bool> {
    let matters = |column: usize| {
        let size = f64::from(row[column]).powi(2);
        if options.repair { size * curvature.of(column) } else { size }
    };
    let mut places: Vec<usize> = (0..row.len()).collect();
    places.sort_by(|a, b| matters(*a).total_cmp(&matters(*b)));
    let mut stays = vec![true; row.len()];
    let goes = (row.len() as f64 * options.share.clamp(0.0, 1.0)) as usize;
    places.iter().take(goes).for_each(|place| stays[*place] = false);
    stays
}

/// How long a model's file is when it is sent: pressed by Zstandard.
///
/// # Errors
/// [`CompressError`] for a model that cannot be written.
pub fn sent_bytes(model: &Model) -> Result<u64, CompressError> {
    let pressed = zstd::encode_all(&model.to_bytes()?[..], LEVEL);
    Ok(pressed.map_err(io_error(Path::new("a copy in memory")))?.len() as u64)
}

/// The share of a model's floats in layers that are zero.
pub fn zeros(told: &[MaskedLayer]) -> f64 {
    let sum = |count: fn(&MaskedLayer) -> usize| told.iter().map(count).sum::<usize>() as f64;
    sum(|layer| layer.zeros) / sum(|layer| layer.weights).max(1.0)
}
