//! Which layers suffer most: each is quantized alone, all others stay in float, and the outputs are compared.

use std::collections::BTreeSet;

use models::backend::Backend;
use models::onnx::Model;

use crate::calibrate::Seen;
use crate::error::CompressError;
use crate::measure::{Items, Reference};
use crate::quantize::rules::Kind;
use crate::quantize::{Recipe, Scheme, plan, quantize};
use crate::scratch::Scratch;

/// The most models that are built for one ranking; with more layers, neighbours share one.
const GROUPS_MAX: usize = 64;

/// Layers, by their first outputs, with the distance of the outputs when only they are quantized.
pub type Ranking = Vec<(Vec<String>, f64)>;

/// Ranks the layers with weights, worst first. `chosen` are the items that are asked; a few will do. `blank`
/// is that of a recogniser.
///
/// # Errors
/// [`CompressError`].
pub fn rank(
    model: &Model,
    seen: &Seen,
    recipe: &Recipe,
    (items, chosen): (&Items<'_>, &[usize]),
    blank: Option<u32>,
    backend: &dyn Backend,
) -> Result<Ranking, CompressError> {
    let layers = layers(model, seen, recipe);
    let scratch = Scratch::new()?;
    let mut float = scratch.load(model, backend)?;
    let reference = Reference::reading(&mut *float, items, chosen, (None, blank))?;
    drop(float);
    let mut ranking = Ranking::new();
    for group in layers.chunks(layers.len().div_ceil(GROUPS_MAX).max(1)) {
        let others = layers.iter().filter(|layer| !group.contains(layer));
        let float: BTreeSet<String> = others.cloned().collect();
        let alone = Recipe { float, rows: false, ..recipe.clone() };
        let built = quantize(model, seen, &alone)?;
        let mut session = scratch.load(&built.model, backend)?;
        let quality = reference.compare(&mut *session, items, chosen)?;
        ranking.push((group.to_vec(), quality.distance()));
    }
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(ranking)
}

/// The layers that a recipe would quantize, in order.
pub fn layers(model: &Model, seen: &Seen, recipe: &Recipe) -> Vec<String> {
    let output = |id| model.graph().node(id).output.first().cloned();
    match recipe.scheme {
        Scheme::Static => {
            let plan = plan(model, &BTreeSet::new(), Some((seen, recipe.method)));
            let weighted =
                plan.nodes.iter().filter(|p| matches!(p.rule.kind, Kind::Weighted { .. }));
            weighted.filter_map(|planned| output(planned.node)).collect()
        }
        Scheme::Dynamic | Scheme::Int8Weights | Scheme::Int4Weights => {
            let products = ["MatMul", "Gemm"].map(|op| model.graph().nodes_of(op)).concat();
            let constant = |id: &models::onnx::NodeId| {
                let weights = model.graph().node(*id).input.get(1);
                weights.is_some_and(|weights| model.graph().constant(weights).is_some())
            };
            products.into_iter().filter(constant).filter_map(output).collect()
        }
    }
}
