//! Matrix products that measure their input at run time.

use std::collections::HashMap;

use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::NodeProto;
use models::onnx::{Graph, NodeId, OnnxError, tensor};

use super::Recipe;
use super::refine::Refined;
use super::weights::{Channels, greatest, scale};

/// Quantizes the matrix products with constant weights; the operators that a runtime should fuse.
pub(super) fn quantize(
    graph: &mut Graph,
    refined: &Refined,
    recipe: &Recipe,
) -> Result<Vec<String>, OnnxError> {
    let mut measured: HashMap<String, [String; 3]> = HashMap::new();
    let mut wanted = Vec::new();
    for id in [graph.nodes_of("MatMul"), graph.nodes_of("Gemm")].concat() {
        let product = graph.node(id).clone();
        let output = product.output.first().cloned().unwrap_or_default();
        if output.is_empty() || recipe.float.contains(&output) || !is_plain(graph, &product) {
            continue;
        }
        let input = product.input[0].clone();
        let names = match measured.get(&input) {
            Some(names) => names.clone(),
            None => {
                let names = measure(graph, &input)?;
                measured.entry(input).or_insert(names).clone()
            }
        };
        multiply(graph, id, &product, &names, (refined, recipe))?;
        wanted.push("MatMul".to_owned());
    }
    Ok(wanted)
}

pub(super) fn is_plain(graph: &Graph, product: &NodeProto) -> bool {
    let weight = product.input.get(1).and_then(|weight| graph.constant(weight));
    let matrix = weight.is_some_and(|w| w.data_type() == 1 && w.dims.len() == 2);
    let plain = |name: &str| product.float(name).unwrap_or(1.0) == 1.0;
    let input = product.input.first();
    let computed = input.is_some_and(|input| graph.weight(input).is_none());
    matrix && computed && plain("alpha") && plain("beta") && product.int("transA").unwrap_or(0) == 0
}

/// Integers, scale and zero point of an input.
fn measure(graph: &mut Graph, input: &str) -> Result<[String; 3], OnnxError> {
    let names = ["q", "scale", "zero"].map(|end| graph.fresh(&format!("{input}_{end}")));
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    graph.insert(node("DynamicQuantizeLinear", &[input], &outputs))?;
    Ok(names)
}

/// `Cast(MatMulInteger(x, w)) * (x_scale * w_scale) [+ bias]`, which ONNX Runtime fuses into one node.
fn multiply(
    graph: &mut Graph,
    id: NodeId,
    product: &NodeProto,
    input: &[String; 3],
    how: (&Refined, &Recipe),
) -> Result<(), OnnxError> {
    let output = product.output[0].clone();
    let [weight, scales, zeros] = weights(graph, product, how)?;
    let names =
        ["int32", "float", "scale", "scaled"].map(|end| graph.fresh(&format!("{output}_{end}")));
    let [sums, floats, factor, scaled] = &names;
    let bias = product.input.get(2).filter(|bias| !bias.is_empty());
    let last = if bias.is_some() { scaled.as_str() } else { output.as_str() };
    let [x, x_scale, x_zero] = input;
    graph.remove(id);
    graph.insert(node("MatMulInteger", &[x, &weight, x_zero, &zeros], &[sums]))?;
    graph.insert(node("Cast", &[sums], &[floats]).with_int("to", 1))?;
    graph.insert(node("Mul", &[x_scale, &scales], &[factor]))?;
    graph.insert(node("Mul", &[floats, factor], &[last]))?;
    if let Some(bias) = bias {
        graph.insert(node("Add", &[last, bias], &[&output]))?;
    }
    Ok(())
}

fn weights(
    graph: &mut Graph,
    product: &NodeProto,
    (refined, recipe): (&Refined, &Recipe),
) -> Result<[String; 3], OnnxError> {
    let name = &product.input[1];
    let Some(floats) = graph.weight(name).cloned() else { return Err(OnnxError::NoGraph) };
    let transposed = product.int("transB").unwrap_or(0) != 0;
    let axis = usize::from(!transposed);
    let channels = Channels::of(&floats, recipe.per_channel.then_some(axis))?;
    let most = greatest(recipe.narrow);
    let scales: Vec<f32> = channels.largest().iter().map(|l| scale(*l, most)).collect();
    let integers = match refined.rows(graph, name, &scales) {
        Some(integers) => integers.clone(),
        None => channels.round(scales, most),
    };
    let [rows, columns] = [0, 1].map(|d| usize::try_from(floats.dims[d]).unwrap_or(0));
    let (dims, values) = match transposed {
        true => {
            let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
            let values: Vec<i8> = turned.map(|index| integers.values[index]).collect();
            ([floats.dims[1], floats.dims[0]], values)
        }
        false => ([floats.dims[0], floats.dims[1]], integers.values),
    };
    let names = ["q", "scale", "zero"].map(|end| graph.fresh(&format!("{name}_{end}")));
    let count = i64::try_from(integers.scales.len()).unwrap_or(0);
    let shape: &[i64] = if recipe.per_channel { &[count] } else { &[] };
    graph.set_weight(tensor::new(&names[0], &dims, &values));
    graph.set_weight(tensor::new(&names[1], shape, &integers.scales));
    graph.set_weight(tensor::new(&names[2], shape, &vec![0i8; integers.scales.len()]));
    Ok(names)
}
