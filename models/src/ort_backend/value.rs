//! Tensors into ONNX Runtime and out of it. Inputs are lent without a copy where their bytes are
//! aligned; outputs are copied once, because ONNX Runtime reuses its memory.

use std::fmt::Debug;
use std::path::Path;

use bytemuck::{CheckedBitPattern, NoUninit};
use bytes::Bytes;
use half::{bf16, f16};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, Outlet, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef,
};
use protocol::manifest::TensorSpec;
use protocol::tensor::{DataType, Tensor, TensorMeta};

use super::failed;
use crate::backend::LoadError;
use crate::error::{InvalidRequest, RunError};

#[cfg(target_endian = "big")]
compile_error!("tensors travel little-endian and are lent to ONNX Runtime as they are");

const DATA_TYPES: [(TensorElementType, DataType); 14] = [
    (TensorElementType::Bool, DataType::Bool),
    (TensorElementType::Uint8, DataType::Uint8),
    (TensorElementType::Uint16, DataType::Uint16),
    (TensorElementType::Uint32, DataType::Uint32),
    (TensorElementType::Uint64, DataType::Uint64),
    (TensorElementType::Int8, DataType::Int8),
    (TensorElementType::Int16, DataType::Int16),
    (TensorElementType::Int32, DataType::Int32),
    (TensorElementType::Int64, DataType::Int64),
    (TensorElementType::Float16, DataType::Fp16),
    (TensorElementType::Bfloat16, DataType::Bf16),
    (TensorElementType::Float32, DataType::Fp32),
    (TensorElementType::Float64, DataType::Fp64),
    (TensorElementType::String, DataType::Bytes),
];

fn data_type(element: TensorElementType) -> Option<DataType> {
    DATA_TYPES.iter().find(|(ort, _)| *ort == element).map(|(_, ours)| *ours)
}

/// What an input or output of the model is.
pub(super) fn spec(outlet: &Outlet, onnx: &Path) -> Result<TensorSpec, LoadError> {
    let datatype = outlet.dtype().tensor_type().and_then(data_type);
    let (Some(datatype), Some(shape)) = (datatype, outlet.dtype().tensor_shape()) else {
        return Err(LoadError::DataType {
            path: onnx.to_owned(),
            tensor: outlet.name().to_owned(),
            datatype: outlet.dtype().to_string(),
        });
    };
    Ok(TensorSpec { name: outlet.name().to_owned(), datatype, shape: shape.to_vec() })
}

/// A copy of the tensor's bytes at an aligned address, where their own is not.
pub(super) fn align(tensor: &Tensor) -> Option<Vec<u64>> {
    let data = tensor.data();
    let unit = tensor.datatype().size_bytes().unwrap_or(1);
    if data.as_ptr().align_offset(unit) == 0 {
        return None;
    }
    let (words, rest) = data.as_chunks::<8>();
    let mut copy = Vec::with_capacity(data.len().div_ceil(8));
    copy.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        copy.push(u64::from_ne_bytes(last));
    }
    Some(copy)
}

/// Lends a tensor to ONNX Runtime; `aligned` is what [`align`] gave for it.
pub(super) fn to_ort<'t>(
    tensor: &'t Tensor,
    aligned: Option<&'t [u64]>,
) -> Result<SessionInputValue<'t>, RunError> {
    let bytes: &[u8] = match aligned {
        None => tensor.data(),
        Some(copy) => &bytemuck::cast_slice(copy)[..tensor.data().len()],
    };
    match tensor.datatype() {
        DataType::Bool => lend::<bool>(tensor, bytes),
        DataType::Uint8 => lend::<u8>(tensor, bytes),
        DataType::Uint16 => lend::<u16>(tensor, bytes),
        DataType::Uint32 => lend::<u32>(tensor, bytes),
        DataType::Uint64 => lend::<u64>(tensor, bytes),
        DataType::Int8 => lend::<i8>(tensor, bytes),
        DataType::Int16 => lend::<i16>(tensor, bytes),
        DataType::Int32 => lend::<i32>(tensor, bytes),
        DataType::Int64 => lend::<i64>(tensor, bytes),
        DataType::Fp16 => lend::<f16>(tensor, bytes),
        DataType::Bf16 => lend::<bf16>(tensor, bytes),
        DataType::Fp32 => lend::<f32>(tensor, bytes),
        DataType::Fp64 => lend::<f64>(tensor, bytes),
        DataType::Bytes => strings(tensor),
    }
}

/// Only a BOOL can have elements that its datatype does not allow.
fn lend<'t, T>(tensor: &Tensor, bytes: &'t [u8]) -> Result<SessionInputValue<'t>, RunError>
where
    T: PrimitiveTensorElementType + CheckedBitPattern + Debug + 'static,
{
    let values: &'t [T] = bytemuck::checked::try_cast_slice(bytes).map_err(|_| {
        let index = bytes.iter().position(|b| *b > 1).unwrap_or(0);
        element(tensor, index, "a BOOL, which is 0 or 1")
    })?;
    let lent = TensorRef::from_array_view((tensor.shape().to_vec(), values));
    Ok(lent.map_err(|e| failed(&e))?.into())
}

fn strings(tensor: &Tensor) -> Result<SessionInputValue<'static>, RunError> {
    let mut texts = Vec::new();
    for (index, bytes) in tensor.byte_elements().enumerate() {
        let text = String::from_utf8(bytes.into()).ok().filter(|text| !text.contains('\0'));
        texts.push(text.ok_or_else(|| element(tensor, index, "UTF-8 text without NUL"))?);
    }
    let value = OrtTensor::from_string_array((tensor.shape().to_vec(), texts.as_slice()));
    Ok(value.map_err(|e| failed(&e))?.into())
}

fn element(tensor: &Tensor, index: usize, expected: &'static str) -> RunError {
    InvalidRequest::Element { name: tensor.name().to_owned(), index, expected }.into()
}

/// Copies an output out of ONNX Runtime.
pub(super) fn from_ort(name: &str, value: &DynValue) -> Result<Tensor, RunError> {
    let datatype = value.dtype().tensor_type().and_then(data_type);
    match datatype.ok_or_else(|| RunError::Failed(format!("{name:?} is no tensor")))? {
        DataType::Bool => copy::<bool>(name, DataType::Bool, value),
        DataType::Uint8 => copy::<u8>(name, DataType::Uint8, value),
        DataType::Uint16 => copy::<u16>(name, DataType::Uint16, value),
        DataType::Uint32 => copy::<u32>(name, DataType::Uint32, value),
        DataType::Uint64 => copy::<u64>(name, DataType::Uint64, value),
        DataType::Int8 => copy::<i8>(name, DataType::Int8, value),
        DataType::Int16 => copy::<i16>(name, DataType::Int16, value),
        DataType::Int32 => copy::<i32>(name, DataType::Int32, value),
        DataType::Int64 => copy::<i64>(name, DataType::Int64, value),
        DataType::Fp16 => copy::<f16>(name, DataType::Fp16, value),
        DataType::Bf16 => copy::<bf16>(name, DataType::Bf16, value),
        DataType::Fp32 => copy::<f32>(name, DataType::Fp32, value),
        DataType::Fp64 => copy::<f64>(name, DataType::Fp64, value),
        DataType::Bytes => copy_strings(name, value),
    }
}

fn copy<T: PrimitiveTensorElementType + NoUninit>(
    name: &str,
    datatype: DataType,
    value: &DynValue,
) -> Result<Tensor, RunError> {
    let (shape, values) = value.try_extract_tensor::<T>().map_err(|e| failed(&e))?;
    let data = Bytes::copy_from_slice(bytemuck::cast_slice(values));
    let build = || Tensor::new(TensorMeta::new(name, datatype, shape.to_vec())?, data);
    build().map_err(|e| RunError::Failed(e.to_string()))
}

fn copy_strings(name: &str, value: &DynValue) -> Result<Tensor, RunError> {
    let (shape, texts) = value.try_extract_strings().map_err(|e| failed(&e))?;
    Tensor::from_byte_strings(name, shape.to_vec(), &texts)
        .map_err(|e| RunError::Failed(e.to_string()))
}
