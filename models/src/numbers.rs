//! Tensors as numbers: any numeric datatype to `f64` and back, for confidences, labels, probes
//! and the stand-in backend. Not for the hot path, which stays in the model's own datatype.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use protocol::tensor::{DataType, InvalidTensor, Tensor, TensorMeta};

/// The values of a numeric tensor in row-major order; `None` for `BYTES`. 64-bit integers are
/// rounded to what `f64` holds.
pub fn to_f64(tensor: &Tensor) -> Option<Vec<f64>> {
    values_of(tensor.datatype(), tensor.data())
}

/// The values of an `FP32` tensor, lent where they lie at an address for floats; `None` for any other datatype.
pub fn floats(tensor: &Tensor) -> Option<Cow<'_, [f32]>> {
    if tensor.datatype() != DataType::Fp32 {
        return None;
    }
    match bytemuck::try_cast_slice(tensor.data()) {
        Ok(lent) if cfg!(target_endian = "little") => Some(Cow::Borrowed(lent)),
        _ => tensor.to_f32().map(Cow::Owned),
    }
}

/// The values of little-endian bytes of that datatype; `None` for `BYTES`. Bytes after the last
/// whole element are left out.
#[allow(clippy::cast_precision_loss)] // documented
pub fn values_of(datatype: DataType, data: &[u8]) -> Option<Vec<f64>> {
    macro_rules! read {
        ($type:ty, $to:expr) => {{
            let chunks = data.as_chunks::<{ size_of::<$type>() }>().0.iter();
            #[allow(clippy::redundant_closure_call)]
            chunks.map(|c| $to(<$type>::from_le_bytes(*c))).collect()
        }};
    }
    Some(match datatype {
        DataType::Bool | DataType::Uint8 => data.iter().map(|b| f64::from(*b)).collect(),
        DataType::Int8 => read!(i8, f64::from),
        DataType::Uint16 => read!(u16, f64::from),
        DataType::Int16 => read!(i16, f64::from),
        DataType::Uint32 => read!(u32, f64::from),
        DataType::Int32 => read!(i32, f64::from),
        DataType::Uint64 => read!(u64, |v| v as f64),
        DataType::Int64 => read!(i64, |v| v as f64),
        DataType::Fp16 => read!(f16, f64::from),
        DataType::Bf16 => read!(bf16, f64::from),
        DataType::Fp32 => read!(f32, f64::from),
        DataType::Fp64 => read!(f64, |v| v),
        DataType::Bytes => return None,
    })
}

/// A tensor with these values, rounded and clamped to its datatype; `BYTES` holds them as text.
///
/// # Errors
/// Values that do not fill the shape.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // documented: clamped
pub fn from_f64(meta: TensorMeta, values: &[f64]) -> Result<Tensor, InvalidTensor> {
    macro_rules! write {
        ($to:expr) => {
            values.iter().flat_map(|v| $to(*v).to_le_bytes()).collect::<Vec<u8>>()
        };
    }
    let data = match meta.datatype {
        DataType::Bool => values.iter().map(|v| u8::from(*v != 0.0)).collect(),
        DataType::Uint8 => write!(|v: f64| v as u8),
        DataType::Int8 => write!(|v: f64| v as i8),
        DataType::Uint16 => write!(|v: f64| v as u16),
        DataType::Int16 => write!(|v: f64| v as i16),
        DataType::Uint32 => write!(|v: f64| v as u32),
        DataType::Int32 => write!(|v: f64| v as i32),
        DataType::Uint64 => write!(|v: f64| v as u64),
        DataType::Int64 => write!(|v: f64| v as i64),
        DataType::Fp16 => write!(f16::from_f64),
        DataType::Bf16 => write!(bf16::from_f64),
        DataType::Fp32 => write!(|v: f64| v as f32),
        DataType::Fp64 => write!(|v: f64| v),
        DataType::Bytes => return as_text(&meta, values),
    };
    Tensor::new(meta, Bytes::from(data))
}

fn as_text(meta: &TensorMeta, values: &[f64]) -> Result<Tensor, InvalidTensor> {
    let text: Vec<String> = values.iter().map(f64::to_string).collect();
    Tensor::from_byte_strings(&meta.name, meta.shape.clone(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_whole_numbers_survive_every_datatype() {
        for name in [
            "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
            "BF16", "FP32", "FP64",
        ] {
            let meta = TensorMeta::new("x", name.parse().unwrap(), vec![3]).unwrap();
            let tensor = from_f64(meta, &[0.0, 1.0, 100.0]).unwrap();
            assert_eq!(to_f64(&tensor), Some(vec![0.0, 1.0, 100.0]), "{name}");
        }
    }

    #[test]
    fn floats_are_the_same_at_every_address() {
        let numbers = [1.5f32, -0.0, 3e8];
        let bytes: Vec<u8> = numbers.iter().flat_map(|value| value.to_le_bytes()).collect();
        for offset in 0..4 {
            let data = Bytes::from([&vec![0; offset][..], &bytes].concat()).slice(offset..);
            let meta = TensorMeta::new("x", DataType::Fp32, vec![3]).unwrap();
            let tensor = Tensor::new(meta, data).unwrap();
            assert_eq!(floats(&tensor).unwrap(), &numbers[..]);
        }
        let meta = TensorMeta::new("x", DataType::Int32, vec![3]).unwrap();
        assert_eq!(floats(&Tensor::new(meta, Bytes::from(bytes)).unwrap()), None);
    }
}
