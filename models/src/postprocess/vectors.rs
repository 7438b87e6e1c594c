//! The arithmetic of post-processing, on `f32` with sums in `f64`.

use protocol::manifest::{PostStep, Postprocess as Derived};
use protocol::tensor::Tensor;

use crate::error::RunError;
use crate::numbers;

/// Numbers with their dimensions.
struct Array {
    shape: Vec<i64>,
    values: Vec<f32>,
}

/// Computes one output from one of the model's.
pub(super) fn derive(
    derived: &Derived,
    from: &Tensor,
    inputs: &[Tensor],
) -> Result<Tensor, RunError> {
    let mut array = Array { shape: from.shape().to_vec(), values: to_f32(from)? };
    for step in &derived.steps {
        match step {
            PostStep::MeanPool { mask } => {
                let mask = mask.as_deref().map(|name| mask_of(name, inputs)).transpose()?;
                array = array.mean_pool(mask)?;
            }
            PostStep::L2Normalize => array.each_row(l2_normalize),
            PostStep::Softmax => {
                if array.values.iter().any(|v| v.is_nan() || *v == f32::INFINITY) {
                    return Err(RunError::NotANumber(from.name().to_owned()));
                }
                array.each_row(softmax);
            }
        }
    }
    Tensor::from_f32(&derived.output, array.shape, &array.values)
        .map_err(|e| RunError::Failed(e.to_string()))
}

fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, RunError> {
    if let Some(values) = tensor.to_f32() {
        return Ok(values);
    }
    let values = numbers::to_f64(tensor);
    let values = values.ok_or_else(|| RunError::Failed(format!("{:?} is text", tensor.name())))?;
    Ok(values.into_iter().map(narrow).collect())
}

#[allow(clippy::cast_possible_truncation)] // documented: results are FP32
fn narrow(value: f64) -> f32 {
    value as f32
}

fn mask_of<'t>(name: &str, inputs: &'t [Tensor]) -> Result<&'t Tensor, RunError> {
    let found = inputs.iter().find(|input| input.name() == name);
    found.ok_or_else(|| RunError::Failed(format!("the mask {name:?} was not given")))
}

impl Array {
    fn each_row(&mut self, change: fn(&mut [f32])) {
        let width = self.shape.last().and_then(|len| usize::try_from(*len).ok()).unwrap_or(1);
        self.values.chunks_mut(width.max(1)).for_each(change);
    }

    /// `[n,tokens,d]` to `[n,d]`: `sum(x * mask) / max(sum(mask), 1e-9)`, as Sentence Transformers
    /// pools.
    fn mean_pool(self, mask: Option<&Tensor>) -> Result<Self, RunError> {
        let sizes: Vec<usize> =
            self.shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect();
        let weights = match mask {
            Some(mask) if mask.shape() == self.shape.get(..2).unwrap_or_default() => {
                numbers::to_f64(mask)
            }
            Some(_) => None,
            None => Some(vec![1.0; sizes.iter().take(2).product()]),
        };
        let (Some(weights), &[items, tokens, width]) = (weights, sizes.as_slice()) else {
            return Err(RunError::Failed("mean-pool: the mask is not [n,tokens]".to_owned()));
        };
        let mut values = Vec::with_capacity(items * width);
        for item in 0..items {
            let weights = &weights[item * tokens..(item + 1) * tokens];
            let mut sums = vec![0.0f64; width];
            for (token, weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                let row = &self.values[(item * tokens + token) * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * weight);
            }
            let count = weights.iter().sum::<f64>().max(1e-9);
            values.extend(sums.into_iter().map(|sum| narrow(sum / count)));
        }
        Ok(Self { shape: vec![self.shape[0], self.shape[2]], values })
    }
}

/// `x / max(|x|, 1e-12)`.
fn l2_normalize(row: &mut [f32]) {
    let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
    let length = square.sqrt().max(1e-12);
    row.iter_mut().for_each(|x| *x = narrow(f64::from(*x) / length));
}

/// `exp(x - max) / sum(exp(x - max))`, which cannot overflow; all alike where every number is
/// negative infinity.
fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let max = if max.is_finite() { f64::from(max) } else { 0.0 };
    let shares: Vec<f64> = row.iter().map(|x| (f64::from(*x) - max).exp()).collect();
    let sum: f64 = shares.iter().sum();
    let even = 1.0 / f64::from(u32::try_from(row.len()).unwrap_or(u32::MAX));
    for (x, share) in row.iter_mut().zip(shares) {
        *x = narrow(if sum > 0.0 { share / sum } else { even });
    }
}
