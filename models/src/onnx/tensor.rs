//! Weights as typed numbers, and typed numbers as weights.
//!
//! A tensor's numbers lie in `raw_data` or in one of several typed lists; readers here take either, and
//! new tensors always use `raw_data`.

use std::borrow::Cow;

use bytemuck::{AnyBitPattern, NoUninit};
use bytes::Bytes;
use half::{bf16, f16};

use super::error::OnnxError;
use super::proto::TensorProto;

/// Element types, by ONNX's numbers.
pub mod element {
    /// `float`.
    pub const FLOAT: i32 = 1;
    /// `uint8`.
    pub const UINT8: i32 = 2;
    /// `int8`.
    pub const INT8: i32 = 3;
    /// `int32`.
    pub const INT32: i32 = 6;
    /// `int64`.
    pub const INT64: i32 = 7;
    /// `string`.
    pub const STRING: i32 = 8;
    /// `bool`.
    pub const BOOL: i32 = 9;
    /// `float16`.
    pub const FLOAT16: i32 = 10;
    /// `double`.
    pub const DOUBLE: i32 = 11;
    /// `bfloat16`.
    pub const BFLOAT16: i32 = 16;

    /// The type's name in ONNX's words.
    pub fn name(element: i32) -> &'static str {
        const NAMES: [&str; 27] = [
            "undefined",
            "float",
            "uint8",
            "int8",
            "uint16",
            "int16",
            "int32",
            "int64",
            "string",
            "bool",
            "float16",
            "double",
            "uint32",
            "uint64",
            "complex64",
            "complex128",
            "bfloat16",
            "float8e4m3fn",
            "float8e4m3fnuz",
            "float8e5m2",
            "float8e5m2fnuz",
            "uint4",
            "int4",
            "float4e2m1",
            "float8e8m0",
            "uint2",
            "int2",
        ];
        usize::try_from(element).ok().and_then(|i| NAMES.get(i)).copied().unwrap_or("unknown")
    }

    /// Bits of one element; none for strings and unknown types.
    pub fn bits(element: i32) -> Option<usize> {
        Some(match element {
            2 | 3 | 9 | 17..=20 | 24 => 8,
            4 | 5 | 10 | 16 => 16,
            1 | 6 | 12 => 32,
            7 | 11 | 13 | 14 => 64,
            15 => 128,
            21..=23 => 4,
            25 | 26 => 2,
            _ => return None,
        })
    }
}

/// How many elements a shape has; none if that is no number that fits.
pub fn elements(dims: &[i64]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &d| product.checked_mul(usize::try_from(d).ok()?))
}

/// How many bytes the elements take; none for strings, unknown types and impossible shapes.
pub fn size_bytes(tensor: &TensorProto) -> Option<usize> {
    let bits = elements(&tensor.dims)?.checked_mul(element::bits(tensor.data_type())?)?;
    Some(bits.div_ceil(8))
}

fn wrong(tensor: &TensorProto, reason: impl Into<String>) -> OnnxError {
    OnnxError::Tensor { tensor: tensor.name().to_owned(), reason: reason.into() }
}

fn checked<'t, T: Clone>(
    tensor: &TensorProto,
    values: Cow<'t, [T]>,
) -> Result<Cow<'t, [T]>, OnnxError> {
    match elements(&tensor.dims) {
        Some(expected) if expected == values.len() => Ok(values),
        _ => {
            let reason = format!("holds {} elements, not {:?}", values.len(), tensor.dims);
            Err(wrong(tensor, reason))
        }
    }
}

/// Raw bytes as numbers: lent where they are aligned, copied where not.
fn raw<T: AnyBitPattern + NoUninit>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) => Cow::Borrowed(values),
        Err(_) => Cow::Owned(
            bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect(),
        ),
    }
}

fn whole<T: AnyBitPattern + NoUninit>(
    tensor: &TensorProto,
) -> Result<Option<Cow<'_, [T]>>, OnnxError> {
    let Some(bytes) = tensor.raw_data.as_ref().filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    if bytes.len() % size_of::<T>() != 0 {
        return Err(wrong(tensor, format!("holds {} bytes, no whole elements", bytes.len())));
    }
    Ok(Some(raw(bytes)))
}

/// The numbers of a float tensor of any width, as `f32`. A big-endian machine is not supported.
///
/// # Errors
/// [`OnnxError::Tensor`] for another type, or data that do not fill the shape.
pub fn f32s(tensor: &TensorProto) -> Result<Cow<'_, [f32]>, OnnxError> {
    #[allow(clippy::cast_possible_truncation)] // doubles are rounded, as documented
    let values = match tensor.data_type() {
        element::FLOAT => {
            whole::<f32>(tensor)?.unwrap_or(Cow::Borrowed(tensor.float_data.as_slice()))
        }
        element::DOUBLE => {
            let doubles = whole::<f64>(tensor)?.unwrap_or(Cow::Borrowed(&tensor.double_data));
            Cow::Owned(doubles.iter().map(|v| *v as f32).collect())
        }
        element::FLOAT16 => Cow::Owned(halves(tensor, |bits| f16::from_bits(bits).to_f32())?),
        element::BFLOAT16 => Cow::Owned(halves(tensor, |bits| bf16::from_bits(bits).to_f32())?),
        other => return Err(wrong(tensor, format!("is {}, not float", element::name(other)))),
    };
    checked(tensor, values)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bit patterns in the low half
fn halves(tensor: &TensorProto, to: impl Fn(u16) -> f32) -> Result<Vec<f32>, OnnxError> {
    Ok(match whole::<u16>(tensor)? {
        Some(bits) => bits.iter().map(|bits| to(*bits)).collect(),
        None => tensor.int32_data.iter().map(|bits| to(*bits as u16)).collect(),
    })
}

/// The numbers of an integer tensor, as `i64`.
///
/// # Errors
/// As [`f32s`].
pub fn i64s(tensor: &TensorProto) -> Result<Cow<'_, [i64]>, OnnxError> {
    let narrow = || tensor.int32_data.iter().map(|v| i64::from(*v)).collect::<Vec<_>>();
    let values = match tensor.data_type() {
        element::INT64 => {
            whole::<i64>(tensor)?.unwrap_or(Cow::Borrowed(tensor.int64_data.as_slice()))
        }
        element::INT32 => Cow::Owned(match whole::<i32>(tensor)? {
            Some(values) => values.iter().map(|v| i64::from(*v)).collect(),
            None => narrow(),
        }),
        element::INT8 => Cow::Owned(match whole::<i8>(tensor)? {
            Some(values) => values.iter().map(|v| i64::from(*v)).collect(),
            None => narrow(),
        }),
        element::UINT8 | element::BOOL => Cow::Owned(match whole::<u8>(tensor)? {
            Some(values) => values.iter().map(|v| i64::from(*v)).collect(),
            None => narrow(),
        }),
        other => return Err(wrong(tensor, format!("is {}, not an integer", element::name(other)))),
    };
    checked(tensor, values)
}

/// Numbers that can be weights.
pub trait Number: NoUninit {
    /// ONNX's number for the type.
    const ELEMENT: i32;
}

macro_rules! numbers {
    ($($type:ty => $element:expr),*) => {
        $(impl Number for $type { const ELEMENT: i32 = $element; })*
    };
}
numbers!(f32 => element::FLOAT, u8 => element::UINT8, i8 => element::INT8, i32 => element::INT32, i64 => element::INT64, f16 => element::FLOAT16);

/// Numbers as `float16`, as weights take them; what lies beyond its reach becomes infinite.
pub fn halves_of(values: &[f32]) -> Vec<f16> {
    values.iter().map(|value| f16::from_f32(*value)).collect()
}

/// New weights. `values` must fill `dims`; readers refuse the tensor otherwise.
pub fn new<T: Number>(name: &str, dims: &[i64], values: &[T]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(T::ELEMENT),
        raw_data: Some(Bytes::copy_from_slice(bytemuck::cast_slice(values))),
        ..TensorProto::default()
    }
}
