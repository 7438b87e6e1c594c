//! How a layer's error grows with errors in its weights, and the weights that come nearest under a condition.
//!
//! With `H = X Xᵀ` of what the layer reads, weights that are off by `e` move its output by `eᵀ H e`. Under a condition on
//! each weight (an integer of a scale, or zero) the best weights are hard to find. Two ways are here. [`Curvature::pass_on`]
//! takes one weight after the other and puts what each loses into those behind it (Frantar et al., GPTQ, 2023): for
//! rounding. [`Curvature::descend`] makes each weight the best one that is allowed while all others stay, round after
//! round, so the error only falls (coordinate descent; Behdin et al., QuantEase, 2023): for weights beside zeros, where it
//! finds the minimum. AdaRound (Nagel et al., 2020) looks for that of rounding, among the two neighbours of each weight.

use super::regression::{inverted, triangle_of};

/// `H` of one layer, with the bias as last input or without it.
pub(crate) struct Curvature {
    size: usize,
    gram: Vec<f64>,
}

impl Curvature {
    /// Of a symmetric positive definite matrix.
    pub(super) fn new(gram: Vec<f64>, size: usize) -> Self {
        Self { size, gram }
    }

    /// How much the output moves with each input's weight alone.
    pub(crate) fn of(&self, input: usize) -> f64 {
        self.gram[input * (self.size + 1)]
    }

    /// The upper triangle `U` with `UᵀU = H⁻¹`, row by row: what an error in one input's weight is worth in those of the
    /// inputs behind it. None for a singular matrix.
    #[allow(clippy::cast_possible_truncation)] // kept as f32
    pub(crate) fn successors(&self) -> Option<Vec<f32>> {
        let size = self.size;
        let lower = triangle_of(inverted(self.gram.clone(), size)?, size)?;
        let turned = (0..size).flat_map(|row| (0..size).map(move |column| (row, column)));
        let upper = turned.map(|(row, column)| match row <= column {
            true => lower[column * size + row] as f32,
            false => 0.0,
        });
        Some(upper.collect())
    }

    /// Settles the weights of a row, the first first; what each loses goes into those behind it. `settle` sees the row as it
    /// is by then.
    pub(crate) fn pass_on(
        &self,
        weights: &mut [f32],
        successors: &[f32],
        settle: &mut dyn FnMut(usize, &[f32]) -> f32,
    ) {
        for column in 0..self.size {
            let line = &successors[column * self.size..][..self.size];
            let settled = settle(column, weights);
            let lost = (weights[column] - settled) / line[column];
            weights[column] = settled;
            let pairs = weights[column + 1..self.size].iter_mut().zip(&line[column + 1..]);
            pairs.for_each(|(weight, share)| *weight -= lost * share);
        }
    }

    /// Moves settled weights nearer to what they stand for, one at a time; at most so many rounds. `settle` makes of a
    /// wanted weight the nearest that is allowed.
    #[allow(clippy::cast_possible_truncation)] // weights are f32
    pub(crate) fn descend(
        &self,
        weights: &mut [f32],
        wanted: &[f32],
        rounds: usize,
        settle: &mut dyn FnMut(usize, f32) -> f32,
    ) {
        let size = self.size;
        let mut slope = vec![0.0f64; size];
        let move_by = |slope: &mut [f64], column: usize, by: f64| {
            let line = &self.gram[column * size..][..size];
            slope.iter_mut().zip(line).for_each(|(sum, value)| *sum += by * value);
        };
        for column in 0..size {
            let off = f64::from(weights[column]) - f64::from(wanted[column]);
            if off != 0.0 {
                move_by(&mut slope, column, off);
            }
        }
        for _ in 0..rounds {
            let mut moved = false;
            for column in 0..size {
                let best = f64::from(weights[column]) - slope[column] / self.of(column);
                let settled = settle(column, best as f32);
                if settled != weights[column] {
                    move_by(&mut slope, column, f64::from(settled) - f64::from(weights[column]));
                    weights[column] = settled;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// By how much the output moves: the sum of squares over all samples.
    #[cfg(test)]
    fn error(&self, weights: &[f32], wanted: &[f32]) -> f64 {
        let off: Vec<f64> =
            weights.iter().zip(wanted).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let row = |i: usize| {
            let line = &self.gram[i * self.size..][..self.size];
            off[i] * line.iter().zip(&off).map(|(a, b)| a * b).sum::<f64>()
        };
        (0..self.size).map(row).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::calibrate::random::Random;

    const SIZE: usize = 24;

    /// Inputs that resemble each other, as channels do.
    fn curvature(random: &mut Random) -> Curvature {
        let mut gram = vec![0.0; SIZE * SIZE];
        for _ in 0..200 {
            let common = random.share() - 0.5;
            let x: Vec<f64> = (0..SIZE).map(|_| common + 0.5 * (random.share() - 0.5)).collect();
            for row in 0..SIZE {
                for column in 0..SIZE {
                    gram[row * SIZE + column] += x[row] * x[column];
                }
            }
        }
        Curvature::new(gram, SIZE)
    }

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn passing_errors_on_is_nearer_than_one_weight_at_a_time() {
        let mut random = Random::new(3);
        let (mut nearest, mut moved, mut passed, mut settled) = (0.0, 0.0, 0.0, 0.0);
        let round = |weight: f32| (weight * 8.0).round() / 8.0;
        for _ in 0..20 {
            let curvature = curvature(&mut random);
            let wanted: Vec<f32> = (0..SIZE).map(|_| random.share() as f32 - 0.5).collect();
            let descend = |mut weights: Vec<f32>| {
                let before = curvature.error(&weights, &wanted);
                curvature.descend(&mut weights, &wanted, 50, &mut |_, weight| round(weight));
                let after = curvature.error(&weights, &wanted);
                assert!(after <= before * (1.0 + 1e-9), "{after} {before}");
                after
            };
            let plain: Vec<f32> = wanted.iter().map(|weight| round(*weight)).collect();
            nearest += curvature.error(&plain, &wanted);
            moved += descend(plain);
            let mut weights = wanted.clone();
            let successors = curvature.successors().unwrap();
            curvature.pass_on(&mut weights, &successors, &mut |i, w| round(w[i]));
            passed += curvature.error(&weights, &wanted);
            settled += descend(weights);
        }
        println!(
            "nearest {nearest:.3}, moved {moved:.3}, passed on {passed:.3}, then moved {settled:.3}"
        );
        assert!(passed < nearest * 0.5 && passed < moved && settled <= passed, "{passed} {moved}");
    }

    #[test]
    fn without_a_condition_all_but_the_zeros_make_them_good() {
        let mut random = Random::new(4);
        let curvature = curvature(&mut random);
        let wanted = [1.0f32; SIZE];
        let masked = |i: usize, weight: f32| if i.is_multiple_of(3) { 0.0 } else { weight };
        let mut weights: Vec<f32> = (0..SIZE).map(|i| masked(i, 1.0)).collect();
        let before = curvature.error(&weights, &wanted);
        curvature.descend(&mut weights, &wanted, 50, &mut |i, weight| masked(i, weight));
        let after = curvature.error(&weights, &wanted);
        assert!(after < before * 0.05, "{after} {before}");
        assert!(weights.iter().step_by(3).all(|weight| *weight == 0.0));
    }
}
