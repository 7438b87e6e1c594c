//! Tensors as they travel: a name, a datatype, a shape, and little-endian bytes in row-major
//! order. What the numbers mean is the business of the `models` crate.

use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

use crate::limits::{NAME_MAX_BYTES, TENSOR_MAX_RANK, TENSORS_MAX_BYTES, TENSORS_MAX_COUNT};

/// The datatypes of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names are the protocol's
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

const DATA_TYPES: [(DataType, &str, Option<usize>); 14] = [
    (DataType::Bool, "BOOL", Some(1)),
    (DataType::Uint8, "UINT8", Some(1)),
    (DataType::Uint16, "UINT16", Some(2)),
    (DataType::Uint32, "UINT32", Some(4)),
    (DataType::Uint64, "UINT64", Some(8)),
    (DataType::Int8, "INT8", Some(1)),
    (DataType::Int16, "INT16", Some(2)),
    (DataType::Int32, "INT32", Some(4)),
    (DataType::Int64, "INT64", Some(8)),
    (DataType::Fp16, "FP16", Some(2)),
    (DataType::Bf16, "BF16", Some(2)),
    (DataType::Fp32, "FP32", Some(4)),
    (DataType::Fp64, "FP64", Some(8)),
    (DataType::Bytes, "BYTES", None),
];

impl DataType {
    fn row(self) -> (DataType, &'static str, Option<usize>) {
        DATA_TYPES[self as usize]
    }

    /// The protocol's name, for example `FP32`.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element; `None` for `BYTES`, whose elements carry their own length.
    pub fn size_bytes(self) -> Option<usize> {
        self.row().2
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DataType {
    type Err = InvalidTensor;
    fn from_str(text: &str) -> Result<Self, InvalidTensor> {
        let row = DATA_TYPES.iter().find(|(_, name, _)| *name == text);
        row.map(|(t, ..)| *t).ok_or_else(|| InvalidTensor::DataType(clip(text)))
    }
}

impl serde::Serialize for DataType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for DataType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(NAME_MAX_BYTES).collect()
}

/// Why a tensor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTensor {
    /// Not a datatype of the protocol.
    #[error(
        "unknown datatype {0:?}; use one of BOOL, UINT8..UINT64, INT8..INT64, FP16, BF16, FP32, FP64, BYTES"
    )]
    DataType(String),
    /// A name that is empty or too long.
    #[error("a tensor name has 1 to {NAME_MAX_BYTES} bytes")]
    Name,
    /// More dimensions than [`TENSOR_MAX_RANK`].
    #[error("tensor {name:?} has {rank} dimensions; at most {TENSOR_MAX_RANK} are served")]
    Rank {
        /// The tensor.
        name: String,
        /// Its number of dimensions.
        rank: usize,
    },
    /// A negative dimension, or a product beyond what is served.
    #[error(
        "tensor {name:?} has shape {shape:?}; every dimension must be >= 0 and the whole at most {TENSORS_MAX_BYTES} bytes"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// The data do not fill the shape exactly.
    #[error("tensor {name:?} of {datatype} {shape:?} needs {expected} bytes but carries {actual}")]
    Size {
        /// The tensor.
        name: String,
        /// Its datatype.
        datatype: DataType,
        /// Its shape.
        shape: Vec<i64>,
        /// Bytes that the shape asks for.
        expected: u64,
        /// Bytes that came.
        actual: u64,
    },
    /// BYTES data whose inner lengths do not add up.
    #[error(
        "tensor {name:?} of BYTES {shape:?} must hold {expected} elements, each behind its length as 4 little-endian bytes"
    )]
    Elements {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// Elements that the shape asks for.
        expected: u64,
    },
    /// More tensors than [`TENSORS_MAX_COUNT`].
    #[error("{0} tensors in one message; at most {TENSORS_MAX_COUNT} are served")]
    Count(usize),
    /// More bytes than [`TENSORS_MAX_BYTES`] in all.
    #[error("{0} bytes of tensors in one message; at most {TENSORS_MAX_BYTES} are served")]
    Total(u64),
}

/// Name, datatype and shape of a tensor: all that is known before its bytes arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMeta {
    /// The model's name for it.
    pub name: String,
    /// Its datatype.
    pub datatype: DataType,
    /// Its dimensions, each >= 0.
    pub shape: Vec<i64>,
}

impl TensorMeta {
    /// A checked description.
    ///
    /// # Errors
    /// A name, rank or shape outside the limits.
    pub fn new(name: &str, datatype: DataType, shape: Vec<i64>) -> Result<Self, InvalidTensor> {
        if name.is_empty() || name.len() > NAME_MAX_BYTES {
            return Err(InvalidTensor::Name);
        }
        if shape.len() > TENSOR_MAX_RANK {
            return Err(InvalidTensor::Rank { name: name.to_owned(), rank: shape.len() });
        }
        let meta = Self { name: name.to_owned(), datatype, shape };
        meta.checked_elements()?;
        Ok(meta)
    }

    fn checked_elements(&self) -> Result<u64, InvalidTensor> {
        let unit = self.datatype.size_bytes().unwrap_or(4) as u64; // a BYTES element is >= its length prefix
        let product = self.shape.iter().try_fold(1u64, |product, &dimension| {
            product.checked_mul(u64::try_from(dimension).ok()?)
        });
        let fits = |n: &u64| n.checked_mul(unit).is_some_and(|bytes| bytes <= TENSORS_MAX_BYTES);
        product.filter(fits).ok_or_else(|| InvalidTensor::Shape {
            name: self.name.clone(),
            shape: self.shape.clone(),
        })
    }

    /// How many elements the shape holds.
    pub fn elements(&self) -> u64 {
        self.checked_elements().unwrap_or(0)
    }

    /// How many bytes the data must have; `None` for `BYTES`.
    pub fn size_bytes(&self) -> Option<u64> {
        self.datatype.size_bytes().map(|unit| self.elements() * unit as u64)
    }

    /// Refuses a data length that does not fill the shape. For `BYTES` only the least possible
    /// length is checked here; [`Tensor::new`] checks its elements.
    ///
    /// # Errors
    /// [`InvalidTensor::Size`].
    pub fn check_size(&self, actual: u64) -> Result<(), InvalidTensor> {
        let (expected, fits) = match self.size_bytes() {
            Some(expected) => (expected, actual == expected),
            None => (self.elements() * 4, actual >= self.elements() * 4),
        };
        if fits {
            return Ok(());
        }
        Err(InvalidTensor::Size {
            name: self.name.clone(),
            datatype: self.datatype,
            shape: self.shape.clone(),
            expected,
            actual,
        })
    }
}

/// A tensor whose bytes fill its shape exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    meta: TensorMeta,
    data: Bytes,
}

impl Tensor {
    /// A checked tensor. `data` is little-endian and row-major; `BYTES` elements stand behind
    /// their length as 4 little-endian bytes (the protocol's binary form).
    ///
    /// # Errors
    /// Data that do not fill the shape.
    pub fn new(meta: TensorMeta, data: Bytes) -> Result<Self, InvalidTensor> {
        meta.check_size(data.len() as u64)?;
        let tensor = Self { meta, data };
        if tensor.meta.datatype == DataType::Bytes
            && tensor.byte_elements().count() as u64 != tensor.meta.elements()
        {
            return Err(tensor.wrong_elements());
        }
        if tensor.meta.datatype == DataType::Bytes {
            let used: usize = tensor.byte_elements().map(|e| e.len() + 4).sum();
            if used != tensor.data.len() {
                return Err(tensor.wrong_elements());
            }
        }
        Ok(tensor)
    }

    fn wrong_elements(&self) -> InvalidTensor {
        InvalidTensor::Elements {
            name: self.meta.name.clone(),
            shape: self.meta.shape.clone(),
            expected: self.meta.elements(),
        }
    }

    /// A tensor of `f32` values.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f32(name: &str, shape: Vec<i64>, values: &[f32]) -> Result<Self, InvalidTensor> {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(TensorMeta::new(name, DataType::Fp32, shape)?, Bytes::from(data))
    }

    /// A tensor of byte strings.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_byte_strings(
        name: &str,
        shape: Vec<i64>,
        elements: &[impl AsRef<[u8]>],
    ) -> Result<Self, InvalidTensor> {
        let mut data = Vec::new();
        for element in elements.iter().map(AsRef::as_ref) {
            let len = u32::try_from(element.len())
                .map_err(|_| InvalidTensor::Total(element.len() as u64))?;
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(element);
        }
        Self::new(TensorMeta::new(name, DataType::Bytes, shape)?, Bytes::from(data))
    }

    /// Name, datatype and shape.
    pub fn meta(&self) -> &TensorMeta {
        &self.meta
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// The datatype.
    pub fn datatype(&self) -> DataType {
        self.meta.datatype
    }

    /// The dimensions.
    pub fn shape(&self) -> &[i64] {
        &self.meta.shape
    }

    /// The bytes, little-endian and row-major.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The values of an `FP32` tensor, `None` for any other datatype.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        if self.meta.datatype != DataType::Fp32 {
            return None;
        }
        let chunks = self.data.as_chunks::<4>().0.iter();
        Some(chunks.map(|c| f32::from_le_bytes(*c)).collect())
    }

    /// The elements of a `BYTES` tensor; nothing for any other datatype.
    pub fn byte_elements(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut rest = match self.meta.datatype {
            DataType::Bytes => self.data.clone(),
            _ => Bytes::new(),
        };
        std::iter::from_fn(move || {
            let prefix: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            let end = (u32::from_le_bytes(prefix) as usize).checked_add(4)?;
            if end > rest.len() {
                return None;
            }
            let element = rest.slice(4..end);
            rest = rest.slice(end..);
            Some(element)
        })
    }
}

/// Checks the number and the total size of the tensors of one message.
///
/// # Errors
/// [`InvalidTensor::Count`] or [`InvalidTensor::Total`].
pub fn check_totals(sizes: impl ExactSizeIterator<Item = u64>) -> Result<u64, InvalidTensor> {
    if sizes.len() > TENSORS_MAX_COUNT {
        return Err(InvalidTensor::Count(sizes.len()));
    }
    let total = sizes.fold(0u64, u64::saturating_add);
    if total > TENSORS_MAX_BYTES {
        return Err(InvalidTensor::Total(total));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(datatype: &str, shape: &[i64], len: usize) -> Result<(), String> {
        let build = || {
            let meta = TensorMeta::new("x", datatype.parse()?, shape.to_vec())?;
            Tensor::new(meta, Bytes::from(vec![0; len])).map(drop)
        };
        build().map_err(|e: InvalidTensor| e.to_string())
    }

    #[test]
    fn data_must_fill_the_shape() {
        assert_eq!(check("FP32", &[2, 3], 24), Ok(()));
        assert_eq!(check("UINT8", &[], 1), Ok(()));
        assert_eq!(check("FP32", &[0, 3], 0), Ok(()));
        assert_eq!(check("BYTES", &[2], 8), Ok(()));
        for (datatype, shape, len) in [
            ("FP32", vec![2, 3], 23),
            ("FP32", vec![-1, 3], 24),
            ("fp32", vec![1], 4),
            ("FP64", vec![i64::MAX, i64::MAX], 0),
            ("UINT8", vec![1; 9], 1),
            ("UINT8", vec![1 << 40], 1),
            ("BYTES", vec![3], 8),
            ("BYTES", vec![1], 8),
        ] {
            assert!(check(datatype, &shape, len).is_err(), "{datatype} {shape:?} {len}");
        }
    }

    #[test]
    fn byte_elements_come_back() {
        let t = Tensor::from_byte_strings("x", vec![3], &[b"a".as_slice(), b"", b"xyz"]).unwrap();
        assert_eq!(t.byte_elements().collect::<Vec<_>>(), ["a", "", "xyz"]);
    }

    #[test]
    fn a_lying_inner_length_is_refused() {
        let meta = TensorMeta::new("x", DataType::Bytes, vec![1]).unwrap();
        let lying = Bytes::from_static(&[255, 255, 255, 255, 0, 0]);
        assert!(matches!(Tensor::new(meta, lying), Err(InvalidTensor::Elements { .. })));
    }
}
