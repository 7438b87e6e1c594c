//! Batch normalization is a multiplication and an addition for each channel, and so is what the weights before it
//! do: `gamma * (W x + b - mean) / sqrt(variance + epsilon) + beta`.

use models::onnx::attribute::Attributes;
use models::onnx::proto::NodeProto;
use models::onnx::{Graph, NodeId, OnnxError, tensor};

/// Operators that can take it in, with the axis of their weights that counts output channels.
const TAKERS: [&str; 3] = ["Conv", "ConvTranspose", "Gemm"];

/// Folds all; how many.
pub(super) fn fold(graph: &mut Graph) -> Result<usize, OnnxError> {
    let mut folded = 0;
    for op in TAKERS {
        for chain in graph.chains(&[op, "BatchNormalization"]) {
            folded += usize::from(fold_one(graph, chain[0], chain[1])?);
        }
    }
    Ok(folded)
}

fn fold_one(graph: &mut Graph, taker: NodeId, norm: NodeId) -> Result<bool, OnnxError> {
    let Some(folded) = compute(graph, taker, norm) else { return Ok(false) };
    let output = graph.node(norm).output.first().cloned().unwrap_or_default();
    let [weight, bias] = ["weight", "bias"].map(|what| graph.fresh(&format!("{output}_{what}")));
    graph.set_weight(tensor::new(&weight, &folded.dims, &folded.weight));
    let channels = i64::try_from(folded.bias.len()).unwrap_or(0);
    graph.set_weight(tensor::new(&bias, &[channels], &folded.bias));
    graph.remove(norm);
    graph.edit(taker, |node| {
        node.output[0] = output;
        node.input.truncate(1);
        node.input.extend([weight, bias]);
    })?;
    Ok(true)
}

struct Folded {
    dims: Vec<i64>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// None for anything that is not plainly what this is for.
#[allow(clippy::cast_possible_truncation)] // computed in f64, kept in f32
fn compute(graph: &Graph, taker: NodeId, norm: NodeId) -> Option<Folded> {
    let (node, norm) = (graph.node(taker), graph.node(norm));
    let floats = |input: Option<&String>| {
        let tensor = graph.constant(input?).filter(|tensor| tensor.data_type() == 1)?;
        tensor::f32s(tensor).ok().map(|values| (tensor.dims.clone(), values.into_owned()))
    };
    let (dims, mut weight) = floats(node.input.get(1))?;
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| floats(norm.input.get(i)));
    let (gamma, beta, mean, variance) = (gamma?.1, beta?.1, mean?.1, variance?.1);
    let channels = gamma.len();
    if norm.output.len() > 1 || norm.int("training_mode").unwrap_or(0) != 0 {
        return None;
    }
    let channel = channel_of(node, &dims)?;
    let before = match node.input.get(2).filter(|bias| !bias.is_empty()) {
        Some(bias) => floats(Some(bias))?.1,
        None => vec![0.0; channels],
    };
    let alike = [&beta, &mean, &variance, &before].iter().all(|values| values.len() == channels);
    if !alike || (0..weight.len()).any(|index| channel(index) >= channels) {
        return None;
    }
    let epsilon = f64::from(norm.float("epsilon").unwrap_or(1e-5));
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let factors: Vec<f64> = (0..channels).map(factor).collect();
    for (index, value) in weight.iter_mut().enumerate() {
        *value = (f64::from(*value) * factors[channel(index)]) as f32;
    }
    let shifted = |c: usize| {
        ((f64::from(before[c]) - f64::from(mean[c])) * factors[c] + f64::from(beta[c])) as f32
    };
    let bias = (0..channels).map(shifted).collect();
    Some(Folded { dims, weight, bias })
}

/// Which output channel each of the weights belongs to.
fn channel_of(node: &NodeProto, dims: &[i64]) -> Option<Box<dyn Fn(usize) -> usize>> {
    let dims: Vec<usize> = dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    let inner = |axis: usize| dims[axis + 1..].iter().product::<usize>().max(1);
    match node.op_type() {
        "Conv" if dims.len() >= 3 => {
            let inner = inner(0);
            Some(Box::new(move |index| index / inner))
        }
        "ConvTranspose" if dims.len() >= 3 => {
            // [inputs, outputs of one group, ...]; the inputs of a group lie together.
            let groups = usize::try_from(node.int("group").unwrap_or(1)).ok()?.max(1);
            let (inputs, outputs, inner) = (dims[0], dims[1], inner(1));
            let per_group = (inputs / groups).max(1);
            Some(Box::new(move |index| {
                let (row, column) = (index / (outputs * inner), index / inner % outputs);
                row / per_group * outputs + column
            }))
        }
        "Gemm" if dims.len() == 2 => {
            let plain = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
            if !(plain("alpha") && plain("beta")) {
                return None;
            }
            let columns = dims[1].max(1);
            let transposed = node.int("transB").unwrap_or(0) != 0;
            Some(Box::new(move |index| if transposed { index / columns } else { index % columns }))
        }
        _ => None,
    }
}
