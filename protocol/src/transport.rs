//! How the numbers of an input travel from a device to the cloud: as they are, or in a half or a
//! quarter of the bytes. What that costs in accuracy is measured when a bundle is made
//! ([`crate::manifest::Thrift`]); here is only how it is done.
//!
//! `FP32` alone is packed: pixels, text and sound files are small already, and what an application
//! packed itself is not packed again. Items are packed one by one, so that an answer depends on its own
//! item alone, with neighbours or without.

use bytes::Bytes;
use half::f16;
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::tensor::{DataType, Tensor, TensorMeta};

mod parcel;
pub use parcel::{Allowance, Allowances, PACKED_AT_ONCE_BYTES, Parcel, packed_bytes};

/// A form in which an input travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// As the application gave it.
    #[default]
    Raw,
    /// Each number as IEEE 754 binary16, little-endian.
    Float16,
    /// Each number as one byte `q`, for `offset + scale * q`; before each item stand its offset and scale
    /// as `FP32`. An item is what the first dimension counts; where there is but one dimension or none, the
    /// whole.
    Int8,
}

/// Offset and scale.
const ITEM_HEADER_BYTES: u64 = 8;
/// The largest `q`.
const STEPS: f32 = 255.0;

/// Why what arrived is not what it says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTransport {
    /// A number for a form that this build does not know.
    #[error("input {name:?} travels in a form ({number}) that is unknown here")]
    Unknown {
        /// The input.
        name: String,
        /// The form's number.
        number: i32,
    },
    /// Not one form for each input.
    #[error("{forms} forms for {inputs} inputs")]
    Count {
        /// Forms.
        forms: usize,
        /// Inputs.
        inputs: usize,
    },
    /// Only floats are packed.
    #[error("input {name:?} is {datatype}, and only FP32 travels as {}", .transport.as_str())]
    DataType {
        /// The input.
        name: String,
        /// What it is.
        datatype: DataType,
        /// How it is said to travel.
        transport: Transport,
    },
    /// Another number of bytes than the shape needs in this form.
    #[error("input {name:?} needs {expected} bytes as {} but carries {actual}", .transport.as_str())]
    Size {
        /// The input.
        name: String,
        /// How it travels.
        transport: Transport,
        /// Bytes that the shape asks for.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// An offset or a scale from which no numbers follow.
    #[error("item {item} of input {name:?} has an offset or a scale that is no number")]
    Scale {
        /// The input.
        name: String,
        /// The item, from 0.
        item: usize,
    },
    /// A half that is infinite or not a number: none is ever packed.
    #[error("element {index} of input {name:?} is no number")]
    NotFinite {
        /// The input.
        name: String,
        /// The element, in row-major order.
        index: usize,
    },
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Transport {
    /// `raw`, `float16` or `int8`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
        }
    }

    /// How many bytes a tensor of numbers takes in this form; of `BYTES` nothing can be said.
    pub fn sent_bytes(self, meta: &TensorMeta) -> Option<u64> {
        match self {
            Self::Raw => meta.size_bytes(),
            Self::Float16 => Some(meta.elements() * 2),
            Self::Int8 => Some(items(meta) * ITEM_HEADER_BYTES + meta.elements()),
        }
    }

    /// Whether this tensor is smaller so.
    pub fn saves(self, meta: &TensorMeta) -> bool {
        meta.datatype == DataType::Fp32 && self.sent_bytes(meta) < meta.size_bytes()
    }

    /// Refuses a length that is not that of such a tensor in this form.
    ///
    /// # Errors
    /// [`InvalidTransport::DataType`] or [`InvalidTransport::Size`]; raw tensors have errors of their own.
    pub fn check_size(self, meta: &TensorMeta, actual: u64) -> Result<(), InvalidTransport> {
        let name = meta.name.clone();
        if meta.datatype != DataType::Fp32 {
            return Err(InvalidTransport::DataType {
                name,
                datatype: meta.datatype,
                transport: self,
            });
        }
        let expected = self.sent_bytes(meta).unwrap_or(0);
        if expected != actual {
            return Err(InvalidTransport::Size { name, transport: self, expected, actual });
        }
        Ok(())
    }

    /// The extent of a tensor, which says how much is lost: of halves the largest magnitude, of bytes the
    /// widest range of an item. Nothing where a number is not finite, or the tensor is no `FP32`.
    pub fn extent(self, tensor: &Tensor) -> Option<f32> {
        let data = floats(tensor)?;
        let widest = match self {
            Self::Raw => 0.0,
            Self::Float16 => Range::of(data)?.magnitude(),
            Self::Int8 => parts(tensor.meta(), data)
                .map(|item| Some(Range::of(item)?.width()))
                .try_fold(0.0, |widest: f32, width| Some(widest.max(width?)))?,
        };
        widest.is_finite().then_some(widest)
    }

    /// The tensor's bytes in this form; nothing where its extent is beyond `extent_max`, so that more would
    /// be lost than was measured, or where it holds what is not finite.
    pub fn pack(self, tensor: &Tensor, extent_max: f32) -> Option<Bytes> {
        let fits = self.extent(tensor)? <= extent_max;
        let data = floats(tensor).filter(|_| fits)?;
        match self {
            Self::Raw => Some(tensor.data().clone()),
            Self::Float16 => pack_halves(data),
            Self::Int8 => pack_bytes(tensor.meta(), data),
        }
    }

    /// The `FP32` bytes of a tensor that arrived in this form.
    ///
    /// # Errors
    /// [`InvalidTransport`].
    pub fn unpack(self, meta: &TensorMeta, sent: &Bytes) -> Result<Bytes, InvalidTransport> {
        if self == Self::Raw {
            return Ok(sent.clone());
        }
        self.check_size(meta, sent.len() as u64)?;
        match self {
            Self::Float16 => unpack_halves(meta, sent),
            _ => unpack_bytes(meta, sent),
        }
    }
}

/// What is packed with an offset and a scale of its own.
fn items(meta: &TensorMeta) -> u64 {
    match meta.shape.as_slice() {
        [items, _, ..] => u64::try_from(*items).unwrap_or(0),
        _ => 1,
    }
}

/// The elements of an `FP32` tensor.
fn floats(tensor: &Tensor) -> Option<&[[u8; 4]]> {
    (tensor.datatype() == DataType::Fp32).then(|| tensor.data().as_chunks().0)
}

/// The elements, item by item.
fn parts<'d>(meta: &TensorMeta, data: &'d [[u8; 4]]) -> impl Iterator<Item = &'d [[u8; 4]]> {
    let items = usize::try_from(items(meta)).unwrap_or(0);
    let each = data.len() / items.max(1);
    (0..items).map(move |item| &data[item * each..(item + 1) * each])
}

/// Between which numbers finite numbers lie.
struct Range {
    least: f32,
    most: f32,
}

impl Range {
    fn of(data: &[[u8; 4]]) -> Option<Self> {
        let (mut least, mut most, mut finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
        for number in data.iter().map(|bytes| f32::from_le_bytes(*bytes)) {
            least = least.min(number);
            most = most.max(number);
            finite &= number.is_finite();
        }
        if data.is_empty() {
            return Some(Self { least: 0.0, most: 0.0 });
        }
        finite.then_some(Self { least, most })
    }

    fn width(&self) -> f32 {
        self.most - self.least
    }

    fn magnitude(&self) -> f32 {
        self.most.max(-self.least)
    }
}

fn pack_halves(data: &[[u8; 4]]) -> Option<Bytes> {
    let mut packed = Vec::with_capacity(data.len() * 2);
    for bytes in data {
        let half = f16::from_f32(f32::from_le_bytes(*bytes));
        if !half.is_finite() {
            return None; // too large for a half
        }
        packed.extend_from_slice(&half.to_le_bytes());
    }
    Some(packed.into())
}

fn unpack_halves(meta: &TensorMeta, sent: &[u8]) -> Result<Bytes, InvalidTransport> {
    let mut data = Vec::with_capacity(sent.len() * 2);
    for (index, bytes) in sent.as_chunks::<2>().0.iter().enumerate() {
        let half = f16::from_le_bytes(*bytes);
        if !half.is_finite() {
            return Err(InvalidTransport::NotFinite { name: meta.name.clone(), index });
        }
        data.extend_from_slice(&half.to_f32().to_le_bytes());
    }
    Ok(data.into())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates, and is within 0 to 255
fn pack_bytes(meta: &TensorMeta, data: &[[u8; 4]]) -> Option<Bytes> {
    let size = Transport::Int8.sent_bytes(meta).and_then(|bytes| usize::try_from(bytes).ok())?;
    let mut packed = Vec::with_capacity(size);
    for item in parts(meta, data) {
        let range = Range::of(item)?;
        let scale = range.width() / STEPS;
        let per_step = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        if !(range.least + scale * STEPS).is_finite() {
            return None; // rounded up to infinity
        }
        packed.extend_from_slice(&range.least.to_le_bytes());
        packed.extend_from_slice(&scale.to_le_bytes());
        let step =
            |bytes: &[u8; 4]| ((f32::from_le_bytes(*bytes) - range.least) * per_step + 0.5) as u8;
        packed.extend(item.iter().map(step));
    }
    Some(packed.into())
}

fn unpack_bytes(meta: &TensorMeta, sent: &[u8]) -> Result<Bytes, InvalidTransport> {
    let items = usize::try_from(items(meta)).unwrap_or(0);
    let mut data = Vec::with_capacity(usize::try_from(meta.elements() * 4).unwrap_or(0));
    for (item, bytes) in sent.chunks_exact((sent.len() / items.max(1)).max(1)).enumerate() {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            f32::from_le_bytes(bytes.unwrap_or_default())
        };
        let (offset, scale) = (number(0), number(4));
        if !(scale >= 0.0 && offset.is_finite() && (offset + scale * STEPS).is_finite()) {
            return Err(InvalidTransport::Scale { name: meta.name.clone(), item });
        }
        let steps = bytes.get(8..).unwrap_or_default();
        data.extend(steps.iter().flat_map(|q| (offset + scale * f32::from(*q)).to_le_bytes()));
    }
    Ok(data.into())
}

#[cfg(test)]
mod tests;
