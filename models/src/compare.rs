//! Whether two answers are the same, as far as a machine can be asked to give the same.

use protocol::tensor::{DataType, Tensor};

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
}
