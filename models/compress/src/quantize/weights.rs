//! Weights as integers.

use models::onnx::proto::TensorProto;
use models::onnx::{Graph, OnnxError, tensor};

use crate::error::CompressError;

/// Weights as integers with their scales.
#[derive(Debug, Clone, PartialEq)]
pub struct Integers {
    /// The integers, in the order of the floats.
    pub values: Vec<i8>,
    /// One scale, or one for each channel.
    pub scales: Vec<f32>,
}

/// Refuses weights that are no numbers.
///
/// # Errors
/// [`CompressError::NotANumberWeights`].
pub fn check(graph: &Graph) -> Result<(), CompressError> {
    for weight in graph.weights().filter(|w| w.data_type() == tensor::element::FLOAT) {
        let values = tensor::f32s(weight)?;
        // An attention mask may hold infinities on purpose; NaN is never meant.
        if values.iter().any(|value| value.is_nan()) {
            return Err(CompressError::NotANumberWeights(weight.name().to_owned()));
        }
    }
    Ok(())
}

/// The floats of a tensor with, for each, the channel along an axis.
pub(super) struct Channels {
    pub(super) values: Vec<f32>,
    pub(super) count: usize,
    inner: usize,
}

impl Channels {
    /// Without an axis all are one channel.
    pub(super) fn of(tensor: &TensorProto, axis: Option<usize>) -> Result<Self, OnnxError> {
        let values = tensor::f32s(tensor)?.into_owned();
        let size = |d: Option<&i64>| d.and_then(|d| usize::try_from(*d).ok()).unwrap_or(1);
        let count = axis.map_or(1, |axis| size(tensor.dims.get(axis))).max(1);
        let rest = axis.map_or(&[][..], |axis| tensor.dims.get(axis + 1..).unwrap_or(&[]));
        let inner = match axis {
            Some(_) => rest.iter().map(|d| size(Some(d))).product::<usize>().max(1),
            None => values.len().max(1),
        };
        Ok(Self { values, count, inner })
    }

    fn channel(&self, index: usize) -> usize {
        index / self.inner % self.count
    }

    /// The largest magnitude of each channel.
    pub(super) fn largest(&self) -> Vec<f32> {
        let mut largest = vec![0.0f32; self.count];
        for (index, value) in self.values.iter().enumerate() {
            let channel = self.channel(index);
            largest[channel] = largest[channel].max(value.abs());
        }
        largest
    }

    /// Rounds to the nearest integer of each channel's scale.
    #[allow(clippy::cast_possible_truncation)] // clamped
    pub(super) fn round(&self, scales: Vec<f32>, most: f32) -> Integers {
        let one = |(index, value): (usize, &f32)| {
            let scale = scales[self.channel(index)];
            (value / scale).round_ties_even().clamp(-most, most) as i8
        };
        let values = self.values.iter().enumerate().map(one).collect();
        Integers { values, scales }
    }
}

/// The greatest integer of weights. -128 is left out, so that weights are symmetric.
pub(super) fn greatest(narrow: bool) -> f32 {
    if narrow { 63.0 } else { 127.0 }
}

/// A scale that is a usable float even for a channel of zeros.
pub(super) fn scale(largest: f32, most: f32) -> f32 {
    let scale = largest / most;
    if scale.is_normal() { scale } else { 1.0 / most }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_scale() {
        let tensor = tensor::new("w", &[2, 2], &[1.0f32, -0.5, 0.0, 0.25]);
        let first = Channels::of(&tensor, Some(0)).unwrap();
        assert_eq!(first.largest(), [1.0, 0.25]);
        let last = Channels::of(&tensor, Some(1)).unwrap();
        assert_eq!(last.largest(), [1.0, 0.5]);
        let integers = last.round(vec![1.0 / 127.0, 0.5 / 127.0], 127.0);
        assert_eq!(integers.values, [127, -127, 0, 64]);
        assert_eq!(Channels::of(&tensor, None).unwrap().largest(), [1.0]);
    }
}
