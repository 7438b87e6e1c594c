//! `x * clip(x + 3, 0, 6) / 6` is `x * hard_sigmoid(x)`: two nodes, where exports of older frameworks have four.

use models::onnx::attribute::{Attributes, node};
use models::onnx::{Graph, NodeId, OnnxError, tensor};

/// Folds all; how many.
pub(super) fn fold(graph: &mut Graph) -> Result<usize, OnnxError> {
    let mut folded = 0;
    for chain in graph.chains(&["Add", "Clip", "Mul"]) {
        folded += usize::from(fold_one(graph, &chain)?);
    }
    Ok(folded)
}

fn number(graph: &Graph, value: Option<&String>) -> Option<f32> {
    let weight = graph.constant(value?)?;
    let values = tensor::f32s(weight).ok()?;
    (values.len() == 1).then(|| values[0])
}

/// The other of two inputs, if one is that number.
fn beside(graph: &Graph, id: NodeId, wanted: f32) -> Option<String> {
    let inputs = &graph.node(id).input;
    let is = |index: usize| number(graph, inputs.get(index)) == Some(wanted);
    match (is(0), is(1)) {
        (false, true) => inputs.first().cloned(),
        (true, false) => inputs.get(1).cloned(),
        _ => None,
    }
}

fn fold_one(graph: &mut Graph, chain: &[NodeId]) -> Result<bool, OnnxError> {
    let [add, clip, mul] = chain else { return Ok(false) };
    let Some(x) = beside(graph, *add, 3.0) else { return Ok(false) };
    let ends = graph.node(*clip).input.get(1..3).unwrap_or(&[]).to_vec();
    let clipped = graph.node(*clip).output.first().cloned();
    let factors = &graph.node(*mul).input;
    let squared = factors.contains(&x) && clipped.is_some_and(|clipped| factors.contains(&clipped));
    let bounds = [number(graph, ends.first()), number(graph, ends.get(1))];
    let product = graph.node(*mul).output.first().cloned().unwrap_or_default();
    let Some(last) = graph.sole_reader(&product).filter(|_| bounds == [Some(0.0), Some(6.0)])
    else {
        return Ok(false);
    };
    let divided = match graph.node(last).op_type() {
        "Div" => number(graph, graph.node(last).input.get(1)) == Some(6.0),
        "Mul" => beside(graph, last, 1.0 / 6.0).is_some(),
        _ => false,
    };
    if !(squared && divided) {
        return Ok(false);
    }
    let Some(output) = graph.node(last).output.first().cloned() else { return Ok(false) };
    chain.iter().chain([&last]).for_each(|id| drop(graph.remove(*id)));
    let gate = graph.fresh(&format!("{output}_gate"));
    let hard = node("HardSigmoid", &[&x], &[&gate]).with_float("alpha", 1.0 / 6.0);
    graph.insert(hard.with_float("beta", 0.5))?;
    graph.insert(node("Mul", &[&x, &gate], &[&output]))?;
    Ok(true)
}
