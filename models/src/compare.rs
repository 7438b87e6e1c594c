//! Whether two answers are the same, as far as a machine can be asked to give the same.

use protocol::tensor::{DataType, Tensor};

use crate::confidence::disagreement;
use crate::numbers;

/// How far a number may lie from the expected one: `|a - b| <= absolute + relative * |b|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// What holds also near 0.
    pub absolute: f64,
    /// What grows with the number.
    pub relative: f64,
}

impl Tolerance {
    /// `tolerance * (1 + |b|)`, as manifests state it.
    pub fn of_manifest(tolerance: f32) -> Self {
        let both = f64::from(tolerance);
        Self { absolute: both, relative: both }
    }

    /// How far an accelerator's numbers may lie from the CPU's. `FP32` allows for products that are
    /// rounded to the 10 bits of TF32, which NVIDIA's libraries use unasked; 8 bit integers are
    /// quantized numbers, where a tie may be rounded either way; all other integers are equal.
    pub fn between_providers(datatype: DataType) -> Self {
        let both = |value| Self { absolute: value, relative: value };
        match datatype {
            DataType::Fp64 => both(1e-6),
            DataType::Fp32 => both(5e-3),
            DataType::Fp16 => both(2e-2),
            DataType::Bf16 => both(5e-2),
            DataType::Int8 | DataType::Uint8 => Self { absolute: 1.0, relative: 0.0 },
            _ => both(0.0),
        }
    }

    /// Whichever allows more.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            absolute: self.absolute.max(other.absolute),
            relative: self.relative.max(other.relative),
        }
    }

    /// Whether a number is near enough. A NaN is equal to a NaN only, an infinity to itself.
    pub fn allows(self, expected: f64, actual: f64) -> bool {
        let same = expected == actual || (expected.is_nan() && actual.is_nan());
        let bound = self.absolute + self.relative * expected.abs();
        same || (expected.is_finite() && (actual - expected).abs() <= bound)
    }
}

/// Where two tensors differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Difference {
    /// Another datatype or shape, or other text.
    Kind,
    /// Another number.
    Value {
        /// Which element, in row-major order.
        element: usize,
        /// What was expected.
        expected: f64,
        /// What came.
        actual: f64,
    },
}

/// The first difference that the tolerance does not allow. Texts must be equal.
///
/// # Errors
/// [`Difference`].
pub fn check(expected: &Tensor, actual: &Tensor, tolerance: Tolerance) -> Result<(), Difference> {
    if expected.meta() != actual.meta() {
        return Err(Difference::Kind);
    }
    let (Some(wanted), Some(got)) = (numbers::to_f64(expected), numbers::to_f64(actual)) else {
        let equal = expected.data() == actual.data();
        return equal.then_some(()).ok_or(Difference::Kind);
    };
    for (element, (expected, actual)) in wanted.into_iter().zip(got).enumerate() {
        if !tolerance.allows(expected, actual) {
            return Err(Difference::Value { element, expected, actual });
        }
    }
    Ok(())
}

/// How two models' answers to the same request compare, where neither is known to be right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Apart {
    /// Of the items this share is answered differently, 0 to 1.
    Differs(f64),
    /// The other gave NaN or infinity where the first gave a number.
    NotNumbers,
}

/// Numbers are another answer when they lie this far from the first's, as `|a - b| / max(|a|, |b|)` of
/// the whole tensor (Euclidean norms): for vectors of one length a cosine of 0.95, and a number may be
/// a third larger.
pub const OTHER_ANSWER: f64 = 0.316;

/// Compares the answers of two versions of a model. The classes that logits name are what counts where
/// there are any (`logits`, `blank` of the manifest's classes); else all outputs, by how far they lie
/// apart. `None` where there is nothing to compare.
pub fn apart(
    one: &[Tensor],
    other: &[Tensor],
    (logits, blank): (Option<&str>, Option<u32>),
) -> Option<Apart> {
    let pairs: Vec<(&Tensor, Option<&Tensor>)> = one
        .iter()
        .map(|tensor| (tensor, other.iter().find(|other| other.name() == tensor.name())))
        .collect();
    if pairs.iter().any(|(one, other)| other.is_some_and(|other| lost_numbers(one, other))) {
        return Some(Apart::NotNumbers);
    }
    let classes = pairs.iter().find(|(one, _)| Some(one.name()) == logits);
    if let Some((one, Some(other))) = classes {
        return Some(Apart::Differs(disagreement(one, other, blank).unwrap_or(1.0)));
    }
    let differs = |(one, other): &(&Tensor, Option<&Tensor>)| {
        other.is_none_or(|other| are_other_answers(one, other))
    };
    let differ = pairs.iter().any(differs);
    (!pairs.is_empty()).then_some(Apart::Differs(f64::from(u8::from(differ))))
}

/// Whether every number of every tensor is one; texts are.
pub fn are_numbers(tensors: &[Tensor]) -> bool {
    tensors.iter().all(|tensor| {
        let floats = matches!(
            tensor.datatype(),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
        );
        let finite = |values: Vec<f64>| values.iter().all(|value| value.is_finite());
        !floats || numbers::to_f64(tensor).is_none_or(finite)
    })
}

fn lost_numbers(one: &Tensor, other: &Tensor) -> bool {
    are_numbers(std::slice::from_ref(one)) && !are_numbers(std::slice::from_ref(other))
}

fn are_other_answers(one: &Tensor, other: &Tensor) -> bool {
    let (Some(a), Some(b)) = (numbers::to_f64(one), numbers::to_f64(other)) else {
        return one.data() != other.data();
    };
    if one.shape() != other.shape() {
        return true;
    }
    let norm = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    // What is no number on both sides says nothing.
    let both = a.iter().zip(&b).filter(|(a, b)| a.is_finite() && b.is_finite());
    let (a, b): (Vec<f64>, Vec<f64>) = both.map(|(a, b)| (*a, *b)).unzip();
    let between: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    norm(&between) > OTHER_ANSWER * norm(&a).max(norm(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_enough() {
        let of = Tolerance::of_manifest(1e-3);
        assert!(of.allows(0.0, 9e-4) && of.allows(1000.0, 1000.9) && !of.allows(1.0, 1.01));
        assert!(of.allows(f64::NAN, f64::NAN) && !of.allows(1.0, f64::NAN));
        assert!(!of.allows(f64::NAN, 1.0) && !of.allows(f64::INFINITY, 1.0));
        assert!(of.allows(f64::INFINITY, f64::INFINITY) && !of.allows(1.0, f64::INFINITY));
        let quantized = Tolerance::between_providers(DataType::Uint8);
        assert!(quantized.allows(200.0, 201.0) && !quantized.allows(200.0, 202.0));
        assert!(!Tolerance::between_providers(DataType::Int64).allows(7.0, 8.0));
        let wide = Tolerance::between_providers(DataType::Fp32).or(Tolerance::of_manifest(0.5));
        assert!(wide.allows(1.0, 1.9));
    }

    fn floats(name: &str, values: &[f32]) -> Tensor {
        Tensor::from_f32(name, vec![1, values.len() as i64], values).unwrap()
    }

    #[test]
    fn two_versions_are_compared_by_what_their_answers_mean() {
        let check = |one: &[f32], other: &[f32], logits: Option<&str>| {
            apart(&[floats("y", one)], &[floats("y", other)], (logits, None))
        };
        let (same, differ) = (Some(Apart::Differs(0.0)), Some(Apart::Differs(1.0)));
        assert_eq!(check(&[1.0, 5.0], &[9.0, 10.0], Some("y")), same, "the same class");
        assert_eq!(check(&[1.0, 5.0], &[9.0, 8.0], Some("y")), differ);
        assert_eq!(check(&[1.0, 5.0], &[1.1, 4.9], None), same);
        assert_eq!(check(&[1.0, 5.0], &[10.0, 50.0], None), differ, "a cosine of 1");
        assert_eq!(check(&[0.0, 0.0], &[0.0, 0.0], None), same);
        assert_eq!(check(&[1.0], &[1.0, 1.0], None), differ, "another shape");
        let nan = Some(Apart::NotNumbers);
        for logits in [None, Some("y")] {
            assert_eq!(check(&[1.0, 5.0], &[1.0, f32::NAN], logits), nan);
        }
        assert_eq!(check(&[f32::INFINITY, 5.0], &[f32::NAN, 5.0], None), same);
        let one = [floats("y", &[1.0])];
        assert_eq!(apart(&one, &[floats("z", &[1.0])], (None, None)), differ, "it is gone");
        assert_eq!(apart(&[], &[], (None, None)), None);
    }
}
