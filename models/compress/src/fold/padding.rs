//! A convolution pads by itself; an export that pads with a node of its own keeps a runtime from fusing what
//! stands before it.

use models::onnx::attribute::Attributes;
use models::onnx::{Graph, NodeId, OnnxError, tensor};

/// Folds all; how many.
pub(super) fn fold(graph: &mut Graph) -> Result<usize, OnnxError> {
    let mut folded = 0;
    for chain in graph.chains(&["Pad", "Conv"]) {
        folded += usize::from(fold_one(graph, chain[0], chain[1])?);
    }
    Ok(folded)
}

fn fold_one(graph: &mut Graph, pad: NodeId, conv: NodeId) -> Result<bool, OnnxError> {
    let Some(pads) = joined(graph, pad, conv) else { return Ok(false) };
    let from = graph.node(pad).input.first().cloned().unwrap_or_default();
    graph.remove(pad);
    graph.edit(conv, |node| {
        *node = node.clone().with_ints("pads", &pads);
        node.unset("auto_pad");
        node.input[0] = from;
    })?;
    Ok(true)
}

/// Both paddings in one, if the node's is of zeros and only along the space.
fn joined(graph: &Graph, pad: NodeId, conv: NodeId) -> Option<Vec<i64>> {
    let (pad, conv) = (graph.node(pad), graph.node(conv));
    if pad.text("mode").is_some_and(|mode| mode != "constant") || pad.input.len() > 3 {
        return None;
    }
    if !matches!(conv.text("auto_pad").unwrap_or("NOTSET"), "NOTSET" | "VALID") {
        return None;
    }
    // Padding belongs to what is convolved, not to the weights.
    if pad.output.first() != conv.input.first() {
        return None;
    }
    if let Some(value) = pad.input.get(2).filter(|value| !value.is_empty()) {
        let zeros = tensor::f32s(graph.constant(value)?).ok()?;
        if zeros.iter().any(|zero| *zero != 0.0) {
            return None;
        }
    }
    let own = tensor::i64s(graph.constant(pad.input.get(1)?)?).ok()?;
    let axes = own.len() / 2;
    let space = axes.checked_sub(2)?;
    let ends = |axis: usize| [own[axis], own[axes + axis]];
    let outside = [ends(0), ends(1)].concat();
    if own.len() % 2 != 0 || outside.iter().any(|v| *v != 0) || own.iter().any(|v| *v < 0) {
        return None;
    }
    let before = conv.ints("pads").map_or_else(|| vec![0; 2 * space], <[i64]>::to_vec);
    if before.len() != 2 * space {
        return None;
    }
    let begin = (0..space).map(|i| before[i] + own[2 + i]);
    let end = (0..space).map(|i| before[space + i] + own[axes + 2 + i]);
    Some(begin.chain(end).collect())
}
