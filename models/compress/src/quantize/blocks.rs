//! Matrix products whose inputs stay in float: only the weights are integers, with a scale and a zero point for each block
//! of neighbours (`MatMulNBits` of ONNX Runtime).
//!
//! Nothing has to be calibrated, no item of a batch touches another, and four bits are possible. Measured on a processor
//! with AVX-512 VNNI, 24 tokens, 384 x 1536: float 126 us, 8 bits 98 us, 4 bits 121 us, a dynamic product 45 us. So this is
//! for size, and for what a dynamic product would spoil. `accuracy_level` 4 (inputs become integers block by block, inside)
//! is what makes it fast: without it the same product takes 600 us with 8 bits.

use models::onnx::attribute::{Attributes, node};
use models::onnx::{Graph, NodeId, OnnxError, tensor};

use super::dynamic;
use super::refine::Refined;
use crate::prune::samples::transposed;

/// Where the operator is defined.
pub(super) const DOMAIN: &str = "com.microsoft";
/// Inputs become integers inside the product.
const INTEGER_INPUTS: i64 = 4;

/// How many neighbours share a scale. With eight bits longer blocks are faster and hardly worse (relative error 0.0075
/// with 32, 0.0091 with 128); with four bits they are worse (0.081 and 0.100).
pub(super) fn length(bits: u32) -> usize {
    if bits == 8 { 128 } else { 32 }
}

/// Weights in blocks, a row for each output.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blocks {
    pub(super) bits: u32,
    outputs: usize,
    inputs: usize,
    values: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
}

impl Blocks {
    pub(super) fn new(outputs: usize, inputs: usize, bits: u32) -> Self {
        let blocks = outputs * inputs.div_ceil(length(bits));
        Self {
            bits,
            outputs,
            inputs,
            values: vec![0; outputs * inputs],
            scales: vec![1.0; blocks],
            zeros: vec![0; blocks],
        }
    }

    /// Each weight to the nearest integer of its block; `rows` has a row for each output.
    pub(super) fn nearest(rows: &[f32], inputs: usize, bits: u32) -> Self {
        let mut blocks = Self::new(rows.len() / inputs.max(1), inputs, bits);
        for (row, weights) in rows.chunks(inputs.max(1)).enumerate() {
            for (column, weight) in weights.iter().enumerate() {
                if column % length(bits) == 0 {
                    let end = (column + length(bits)).min(inputs);
                    blocks.open(row, column, &weights[column..end]);
                }
                blocks.round(row, column, *weight);
            }
        }
        blocks
    }

    fn block(&self, row: usize, column: usize) -> usize {
        row * self.inputs.div_ceil(length(self.bits)) + column / length(self.bits)
    }

    fn most(&self) -> f32 {
        if self.bits == 8 { 255.0 } else { 15.0 }
    }

    /// Finds scale and zero point of the block that begins here.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 255
    pub(super) fn open(&mut self, row: usize, column: usize, weights: &[f32]) {
        let low = weights.iter().copied().fold(0.0, f32::min);
        let high = weights.iter().copied().fold(0.0, f32::max);
        let block = self.block(row, column);
        let step = (high - low) / self.most();
        self.scales[block] = if step.is_normal() { step } else { 1.0 };
        self.zeros[block] = (-low / self.scales[block]).round().clamp(0.0, self.most()) as u8;
    }

    /// Rounds one weight; what it is worth then.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 255
    pub(super) fn round(&mut self, row: usize, column: usize, weight: f32) -> f32 {
        let block = self.block(row, column);
        let (step, zero) = (self.scales[block], f32::from(self.zeros[block]));
        let integer = ((weight / step).round_ties_even() + zero).clamp(0.0, self.most());
        self.values[row * self.inputs + column] = integer as u8;
        (integer - zero) * step
    }

    /// The integers as the product reads them: each row filled up to whole blocks with its zero points, two of four bits
    /// in a byte, the first in the lower half.
    fn packed(&self) -> Vec<u8> {
        let (length, blocks) = (length(self.bits), self.inputs.div_ceil(length(self.bits)));
        let mut bytes = Vec::with_capacity(self.outputs * blocks * length);
        for row in 0..self.outputs {
            for column in 0..blocks * length {
                bytes.push(match column < self.inputs {
                    true => self.values[row * self.inputs + column],
                    false => self.zeros[self.block(row, column)],
                });
            }
        }
        halves(bytes, self.bits)
    }

    /// The zero points; each row of four bits begins with a byte of its own.
    fn packed_zeros(&self) -> Vec<u8> {
        let blocks = self.inputs.div_ceil(length(self.bits)).max(1);
        let row = |zeros: &[u8]| {
            let mut row = zeros.to_vec();
            row.resize(blocks.next_multiple_of(2), 0);
            if self.bits == 8 { zeros.to_vec() } else { halves(row, self.bits) }
        };
        self.zeros.chunks(blocks).flat_map(row).collect()
    }
}

fn halves(bytes: Vec<u8>, bits: u32) -> Vec<u8> {
    match bits {
        8 => bytes,
        _ => bytes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect(),
    }
}

/// Quantizes the matrix products with constant weights whose outputs are wanted; how many.
pub(super) fn quantize(
    graph: &mut Graph,
    (bits, refined): (u32, &Refined),
    is_wanted: impl Fn(&str) -> bool,
) -> Result<usize, OnnxError> {
    let mut count = 0;
    for id in [graph.nodes_of("MatMul"), graph.nodes_of("Gemm")].concat() {
        if graph.node(id).output.first().is_some_and(|output| is_wanted(output)) {
            count += usize::from(replace(graph, id, bits, refined)?);
        }
    }
    Ok(count)
}

/// Puts a product with integer weights in the place of one with constant floats; false where its form does not allow it.
fn replace(graph: &mut Graph, id: NodeId, bits: u32, refined: &Refined) -> Result<bool, OnnxError> {
    let product = graph.node(id).clone();
    if !dynamic::is_plain(graph, &product) {
        return Ok(false);
    }
    let name = product.input[1].clone();
    let Some(floats) = graph.weight(&name).cloned() else { return Ok(false) };
    let blocks = match refined.blocks(graph, &name, bits) {
        Some(blocks) => blocks.clone(),
        None => {
            let turned = product.int("transB").unwrap_or(0) == 0;
            let (rows, inputs) = rows_of(&floats, turned)?;
            Blocks::nearest(&rows, inputs, bits)
        }
    };
    graph.remove(id);
    let [q, scales, zeros] =
        ["q", "scale", "zero"].map(|end| graph.fresh(&format!("{name}_{end}")));
    let size = |count: usize| i64::try_from(count).unwrap_or(0);
    let per_row = blocks.inputs.div_ceil(length(bits));
    let bytes = length(bits) * bits as usize / 8;
    let dims = [size(blocks.outputs), size(per_row), size(bytes)];
    graph.set_weight(tensor::new(&q, &dims, &blocks.packed()));
    graph.set_weight(tensor::new(&scales, &[size(blocks.scales.len())], &blocks.scales));
    let packed_zeros = blocks.packed_zeros();
    graph.set_weight(tensor::new(&zeros, &[size(packed_zeros.len())], &packed_zeros));
    let output = &product.output[0];
    let bias = product.input.get(2).filter(|bias| !bias.is_empty());
    let plain =
        if bias.is_some() { graph.fresh(&format!("{output}_plain")) } else { output.clone() };
    let mut multiply = node("MatMulNBits", &[&product.input[0], &q, &scales, &zeros], &[&plain])
        .with_int("K", size(blocks.inputs))
        .with_int("N", size(blocks.outputs))
        .with_int("bits", bits.into())
        .with_int("block_size", size(length(bits)))
        .with_int("accuracy_level", INTEGER_INPUTS);
    multiply.domain = Some(DOMAIN.to_owned());
    graph.insert(multiply)?;
    if let Some(bias) = bias {
        graph.insert(node("Add", &[&plain, bias], &[output]))?;
    }
    Ok(true)
}

/// A matrix as a row for each output, and how many inputs it has.
fn rows_of(
    floats: &models::onnx::proto::TensorProto,
    turned: bool,
) -> Result<(Vec<f32>, usize), OnnxError> {
    let values = tensor::f32s(floats)?;
    let [first, second] = [0, 1].map(|d| usize::try_from(floats.dims[d]).unwrap_or(0));
    if !turned {
        return Ok((values.into_owned(), second));
    }
    Ok((transposed(&values, second), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_and_packed() {
        let rows: Vec<f32> = (0..2 * 40u8).map(|i| f32::from(i) - 20.0).collect();
        let blocks = Blocks::nearest(&rows, 40, 4);
        assert_eq!(blocks.scales.len(), 4); // 40 inputs are two blocks of 32
        assert_eq!((blocks.packed().len(), blocks.packed_zeros().len()), (64, 2));
        for (index, weight) in rows.iter().enumerate() {
            let block = blocks.block(index / 40, index % 40);
            let step = blocks.scales[block];
            let worth = (f32::from(blocks.values[index]) - f32::from(blocks.zeros[block])) * step;
            assert!((worth - weight).abs() <= step, "{weight} became {worth}");
        }
        let whole = Blocks::nearest(&rows, 40, 8);
        assert_eq!((whole.packed().len(), whole.packed_zeros()), (256, whole.zeros.clone()));
    }
}
