//! What the layers of a model read, a few layers at a time: neither their inputs nor their matrices must all be in memory at
//! once.

use models::backend::Backend;
use models::calibrate::random::Random;
use models::numbers;
use models::onnx::{Graph, Model, NodeId};
use protocol::tensor::Tensor;

use super::regression::Moments;
use super::samples::Layer;
use crate::calibrate::{together, watch};
use crate::error::CompressError;
use crate::measure::Items;

/// Layers that are sampled together have matrices of at most so many numbers.
const TOGETHER_MAX: usize = 8 << 20;
/// Places of each item, at least.
const PLACES: usize = 48;

/// What is asked of what a layer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// How its inputs go together.
    Matrices,
    /// The mean of each.
    Means,
}

/// Takes a layer with the moments of what its groups read.
pub(crate) type Call<'c> = dyn FnMut(&Layer, Vec<Moments>) -> Result<(), CompressError> + 'c;

/// The layers of some operators whose weights nobody else reads.
pub(crate) fn layers(graph: &Graph, ops: &[&str]) -> Vec<Layer> {
    let own = |id: &NodeId| {
        let weight = graph.node(*id).input.get(1);
        weight.is_some_and(|w| graph.constant(w).is_some() && graph.readers(w).count() == 1)
    };
    let ids = ops.iter().flat_map(|op| graph.nodes_of(op)).filter(own);
    ids.filter_map(|id| Layer::of(graph, id)).collect()
}

/// Hands out each layer with the moments of what its groups read.
///
/// # Errors
/// [`CompressError`], and what `call` fails with.
pub(crate) fn each(
    model: &Model,
    (layers, asked): (&[Layer], Asked),
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
    call: &mut Call<'_>,
) -> Result<(), CompressError> {
    let first = chosen.first().copied().unwrap_or(0);
    let is_given = |layer: &&Layer| model.graph().is_input(&layer.reads);
    let reads: Vec<String> =
        layers.iter().filter(|layer| !is_given(layer)).map(|layer| layer.reads.clone()).collect();
    let groups = together(model, &reads, &items(first)?, backend)?;
    // What reads the model's inputs needs no run: a group without values.
    for group in std::iter::once(Vec::new()).chain(groups) {
        let of_group = |layer: &&Layer| match group.is_empty() {
            true => is_given(layer),
            false => group.contains(&layer.reads),
        };
        let own: Vec<Layer> = layers.iter().filter(of_group).cloned().collect();
        for some in by_memory(&own, asked) {
            let sampled = sample(model, (some, asked), (items, chosen), backend)?;
            for (layer, moments) in some.iter().zip(sampled) {
                call(layer, moments)?;
            }
        }
    }
    Ok(())
}

/// Layers in a row whose matrices fit the memory together.
fn by_memory(layers: &[Layer], asked: Asked) -> Vec<&[Layer]> {
    let rows = |layer: &Layer| if asked == Asked::Means { 1 } else { layer.inputs + 1 };
    let size = |layer: &Layer| (layer.inputs + 1) * rows(layer) * layer.groups;
    let (mut rest, mut parts) = (layers, Vec::new());
    while !rest.is_empty() {
        let mut numbers = 0;
        let fits = rest.iter().take_while(|layer| {
            numbers += size(layer);
            numbers <= TOGETHER_MAX
        });
        let (some, others) = rest.split_at(fits.count().max(1));
        parts.push(some);
        rest = others;
    }
    parts
}

/// What each group of each layer reads.
fn sample(
    model: &Model,
    (layers, asked): (&[Layer], Asked),
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<Vec<Vec<Moments>>, CompressError> {
    let mut wanted: Vec<String> = layers.iter().map(|layer| layer.reads.clone()).collect();
    wanted.sort();
    wanted.dedup();
    wanted.retain(|value| !model.graph().is_input(value));
    let mut session = match wanted.is_empty() {
        true => None,
        false => Some(watch(model, &wanted, backend)?),
    };
    let one = |layer: &Layer| match asked {
        Asked::Matrices => Moments::new(layer.inputs, 0),
        Asked::Means => Moments::means_alone(layer.inputs),
    };
    let fresh = |layer: &Layer| (0..layer.groups).map(|_| one(layer)).collect::<Vec<_>>();
    let mut moments: Vec<Vec<Moments>> = layers.iter().map(fresh).collect();
    let mut random = Random::new(chosen.len() as u64);
    for &item in chosen {
        let inputs = items(item)?;
        let outputs = match &mut session {
            None => Vec::new(),
            Some(session) => session
                .run(&inputs, &wanted)
                .map_err(|source| CompressError::Run { item, source })?,
        };
        let find = |name: &str| -> Option<&Tensor> {
            inputs.iter().chain(&outputs).find(|tensor| tensor.name() == name)
        };
        for (layer, moments) in layers.iter().zip(&mut moments) {
            let Some(x) = find(&layer.reads) else { continue };
            let Some(values) = numbers::floats(x) else { continue };
            let places = PLACES.max(3 * layer.inputs / chosen.len().max(1));
            layer.read((x.shape(), &values), places, &mut random, moments);
        }
    }
    Ok(moments)
}
