//! What a layer loses with some of its inputs, and how its other weights make that good.
//!
//! A layer computes `Y = W X`. Of samples of what it reads (`X`, in the model as it is cut so far) and of what it should give
//! (`Y`, in the model as it was), the matrix `H = X Xᵀ + ridge` and the product `Y Xᵀ` are enough: the weights that come nearest
//! to `Y` are `(Y Xᵀ + ridge W) H⁻¹`, and doing without the inputs `B` costs at least `W_B (H⁻¹_BB)⁻¹ W_Bᵀ`, after which the other
//! weights are `W - W_B (H⁻¹_BB)⁻¹ H⁻¹_B·` (Hassibi and Stork, Optimal Brain Surgeon, 1993, for rows together). So inputs
//! are taken out one by one, the cheapest first, and each time everything else is fitted anew.

use super::curvature::Curvature;

/// Sums over samples of one layer.
#[derive(Clone)]
pub(crate) struct Moments {
    inputs: usize,
    outputs: usize,
    /// The first row of `gram` that is kept: of the means alone, the last one.
    first: usize,
    /// `X Xᵀ`, with a last input that is always 1, for the bias.
    gram: Vec<f64>,
    /// `Y Xᵀ`.
    cross: Vec<f64>,
    /// `|Y - mean|²`.
    energy: f64,
    sums: Vec<f64>,
    samples: usize,
    /// Samples that wait to be added: together they find the cache warm.
    waiting: Vec<f32>,
}

/// Samples that are added together.
const TOGETHER: usize = 32;

impl Moments {
    pub(crate) fn new(inputs: usize, outputs: usize) -> Self {
        Self::from_row(0, inputs, outputs)
    }

    /// Of what only the means are asked.
    pub(crate) fn means_alone(inputs: usize) -> Self {
        Self::from_row(inputs, inputs, 0)
    }

    fn from_row(first: usize, inputs: usize, outputs: usize) -> Self {
        let width = inputs + 1;
        Self {
            inputs,
            outputs,
            first,
            gram: vec![0.0; (width - first) * width],
            cross: vec![0.0; outputs * width],
            energy: 0.0,
            sums: vec![0.0; outputs],
            samples: 0,
            waiting: Vec::new(),
        }
    }

    /// Adds what the layer read and what it should give.
    pub(crate) fn add(&mut self, input: &[f32], output: &[f32]) {
        self.waiting.extend_from_slice(input);
        self.waiting.push(1.0);
        self.waiting.extend_from_slice(output);
        self.samples += 1;
        for (sum, value) in self.sums.iter_mut().zip(output) {
            *sum += f64::from(*value);
            self.energy += f64::from(*value) * f64::from(*value);
        }
        if self.samples.is_multiple_of(TOGETHER) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let width = self.inputs + 1;
        let samples: Vec<&[f32]> = self.waiting.chunks(width + self.outputs).collect();
        let mut row = vec![0.0f32; width];
        for index in self.first..width + self.outputs {
            row.fill(0.0);
            // Only the lower half: the matrix is symmetric.
            let end = if index < width { index + 1 } else { width };
            for sample in &samples {
                let factor = sample[index];
                if factor != 0.0 {
                    let pairs = row[..end].iter_mut().zip(&sample[..end]);
                    pairs.for_each(|(sum, value)| *sum += factor * value);
                }
            }
            let place = match index.checked_sub(width) {
                None => &mut self.gram[(index - self.first) * width..][..end],
                Some(output) => &mut self.cross[output * width..][..end],
            };
            place.iter_mut().zip(&row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        self.waiting.clear();
    }

    /// How many numbers it reads.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many samples were added.
    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Makes the matrix whole and regular; how much was added to its diagonal.
    fn regular(&mut self, ridge: f64) -> f64 {
        self.flush();
        let width = self.inputs + 1;
        for row in 0..width {
            for column in 0..row {
                self.gram[column * width + row] = self.gram[row * width + column];
            }
        }
        let trace: f64 = (0..self.inputs).map(|i| self.gram[i * width + i]).sum();
        let strength = (ridge * trace / self.inputs.max(1) as f64).max(1e-9);
        for (index, value) in self.gram.iter_mut().step_by(width + 1).enumerate() {
            // The bias is free, but for as much as keeps the matrix regular.
            *value += if index < self.inputs { strength } else { 1e-6 * self.samples as f64 };
        }
        strength
    }

    /// The mean of each input.
    pub(crate) fn means(&mut self) -> Vec<f64> {
        self.flush();
        let last = (self.inputs - self.first) * (self.inputs + 1);
        let sums = &self.gram[last..][..self.inputs];
        sums.iter().map(|sum| sum / self.samples.max(1) as f64).collect()
    }

    /// How the layer's output moves with its weights, with the bias as last input or without it.
    pub(crate) fn curvature(mut self, ridge: f64, has_bias: bool) -> Curvature {
        self.regular(ridge);
        let (all, size) = (self.inputs + 1, self.inputs + usize::from(has_bias));
        let rows = self.gram.chunks(all).take(size);
        Curvature::new(rows.flat_map(|row| row[..size].iter().copied()).collect(), size)
    }

    /// The regression towards `weights` (a row for each output) and `bias`; a layer without one keeps it at zero.
    pub(crate) fn solve(
        mut self,
        weights: &[f32],
        bias: &[f32],
        ridge: f64,
        has_bias: bool,
    ) -> Option<Regression> {
        let strength = self.regular(ridge);
        let width = self.inputs + 1;
        for output in 0..self.outputs {
            let row = &weights[output * self.inputs..][..self.inputs];
            let cross = &mut self.cross[output * width..][..width];
            cross
                .iter_mut()
                .zip(row)
                .for_each(|(sum, weight)| *sum += strength * f64::from(*weight));
            let bias = bias.get(output).copied().unwrap_or(0.0);
            cross[self.inputs] += 1e-6 * self.samples as f64 * f64::from(bias);
        }
        let inverse = inverted(self.gram, width)?;
        let mut fitted = vec![0.0; self.outputs * width];
        for (to, cross) in fitted.chunks_mut(width).zip(self.cross.chunks(width)) {
            for (factor, row) in cross.iter().zip(inverse.chunks(width)) {
                to.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
            }
        }
        let means: f64 =
            self.sums.iter().map(|sum| sum * sum).sum::<f64>() / self.samples.max(1) as f64;
        let energy = (self.energy - means).max(1e-12);
        let mut regression = Regression { width, weights: fitted, inverse, energy };
        if !has_bias {
            regression.remove_one(width - 1);
        }
        Some(regression)
    }
}

/// The lower triangle whose product with its own transpose is a symmetric positive definite matrix (Cholesky); none for any
/// other matrix.
#[allow(clippy::needless_range_loop)] // rows and columns
pub(super) fn triangle_of(mut matrix: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    for row in 0..size {
        for column in 0..=row {
            let (above, below) = matrix.split_at_mut(row * size);
            let sum = match column == row {
                true => below[..column].iter().map(|v| v * v).sum::<f64>(),
                false => {
                    below[..column].iter().zip(&above[column * size..]).map(|(a, b)| a * b).sum()
                }
            };
            let value = below[column] - sum;
            below[column] = match column == row {
                true if value > 0.0 => value.sqrt(),
                true => return None,
                false => value / above[column * size + column],
            };
        }
    }
    Some(matrix)
}

/// The inverse of a symmetric positive definite matrix; none for any other.
#[allow(clippy::needless_range_loop)] // rows and columns
pub(super) fn inverted(matrix: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    let matrix = triangle_of(matrix, size)?;
    // The inverse of the triangle, by columns kept as rows.
    let mut triangle = vec![0.0; size * size];
    for column in 0..size {
        let (start, own) = (column * size, &mut triangle[column * size..][..size]);
        own[column] = 1.0 / matrix[start + column];
        for row in column + 1..size {
            let factors = &matrix[row * size..][column..row];
            let sum: f64 = factors.iter().zip(&own[column..row]).map(|(a, b)| a * b).sum();
            own[row] = -sum / matrix[row * size + row];
        }
    }
    let mut inverse = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..=row {
            let (a, b) =
                (&triangle[row * size..][row..size], &triangle[column * size..][row..size]);
            let value: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            inverse[row * size + column] = value;
            inverse[column * size + row] = value;
        }
    }
    Some(inverse)
}

/// A fitted layer from which inputs are taken.
pub(crate) struct Regression {
    width: usize,
    /// A row for each output; the last of a row is the bias.
    weights: Vec<f64>,
    inverse: Vec<f64>,
    energy: f64,
}

impl Regression {
    /// What doing without some inputs costs, as a share of what the outputs vary.
    pub(crate) fn cost(&self, inputs: &[usize]) -> f64 {
        let Some(block) = self.block(inputs) else { return f64::INFINITY };
        let mut cost = 0.0;
        for row in self.weights.chunks(self.width) {
            for (a, &i) in inputs.iter().enumerate() {
                let line: f64 = inputs
                    .iter()
                    .enumerate()
                    .map(|(b, &j)| block[a * inputs.len() + b] * row[j])
                    .sum();
                cost += row[i] * line;
            }
        }
        cost / self.energy
    }

    /// Takes some inputs out and fits the others anew.
    pub(crate) fn remove(&mut self, inputs: &[usize]) {
        for &input in inputs {
            self.remove_one(input);
        }
    }

    /// One after the other comes to the same as all together.
    fn remove_one(&mut self, input: usize) {
        let width = self.width;
        let line: Vec<f64> = self.inverse[input * width..][..width].to_vec();
        let own = line[input];
        if own <= 0.0 {
            return;
        }
        for row in self.weights.chunks_mut(width).chain(self.inverse.chunks_mut(width)) {
            let factor = row[input] / own;
            if factor != 0.0 {
                row.iter_mut().zip(&line).for_each(|(value, step)| *value -= factor * step);
            }
            row[input] = 0.0;
        }
        self.inverse[input * width..][..width].fill(0.0);
    }

    /// `(H⁻¹_BB)⁻¹`.
    fn block(&self, inputs: &[usize]) -> Option<Vec<f64>> {
        let pairs = inputs.iter().flat_map(|i| inputs.iter().map(move |j| (i, j)));
        let block = pairs.map(|(i, j)| self.inverse[i * self.width + j]);
        inverted(block.collect(), inputs.len())
    }

    /// The weights, a row for each output, and the bias.
    #[allow(clippy::cast_possible_truncation)] // kept as f32
    pub(crate) fn weights(&self) -> (Vec<f32>, Vec<f32>) {
        let rows = self.weights.chunks(self.width);
        let bias = rows.clone().map(|row| row[self.width - 1] as f32).collect();
        let weights =
            rows.flat_map(|row| row[..self.width - 1].iter().map(|v| *v as f32)).collect();
        (weights, bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two outputs of four inputs, of which the last is the sum of the first two.
    fn regression() -> Regression {
        let weights = [1.0f32, 0.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.5];
        let bias = [0.5f32, -1.0];
        let mut moments = Moments::new(4, 2);
        let mut state = 1u32;
        for _ in 0..500 {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0 - 0.5
            };
            let (a, b, c) = (next(), next(), next());
            let x = [a, b, c, a + b];
            let y = |o: usize| bias[o] + (0..4).map(|i| weights[o * 4 + i] * x[i]).sum::<f32>();
            moments.add(&x, &[y(0), y(1)]);
        }
        moments.solve(&weights, &bias, 1e-6, true).unwrap()
    }

    #[test]
    fn what_others_can_replace_costs_nothing() {
        let mut regression = regression();
        let costs: Vec<f64> = (0..4).map(|input| regression.cost(&[input])).collect();
        assert!(costs[3] < 1e-4 && costs[2] > 0.1, "{costs:?}");
        regression.remove(&[3]);
        let (weights, bias) = regression.weights();
        let expected = [2.0, 1.0, 2.0, 0.0, 0.5, 1.5, 0.0, 0.0];
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-2;
        assert!(weights.iter().zip(&expected).all(near), "{weights:?}");
        assert!(bias.iter().zip(&[0.5, -1.0]).all(near), "{bias:?}");
        // Now the first two are needed.
        assert!(regression.cost(&[0]) > 0.05);
    }

    #[test]
    fn a_block_costs_as_much_as_its_members_one_after_the_other() {
        let mut regression = regression();
        let together = regression.cost(&[0, 2]);
        let first = regression.cost(&[0]);
        regression.remove(&[0]);
        let second = regression.cost(&[2]);
        assert!((together - first - second).abs() < 1e-6 * together, "{together} {first} {second}");
    }
}
