//! Typed contents: numbers as protobuf carries them, several datatypes in one field.

use bytes::Bytes;
use std::fmt::Display;

use super::super::options::invalid;
use crate::problem::Problem;
use crate::tensor::{DataType, Tensor, TensorMeta};
use crate::wire::inference::InferTensorContents;

/// Packs the field that belongs to the tensor's datatype into little-endian bytes.
pub(super) fn parse(meta: TensorMeta, contents: InferTensorContents) -> Result<Tensor, Problem> {
    let c = contents;
    macro_rules! as_is {
        ($values:expr) => {{
            check_count(&meta, $values.len())?;
            $values.iter().flat_map(|v| v.to_le_bytes()).collect()
        }};
    }
    macro_rules! narrow {
        ($values:expr, $t:ty) => {{
            check_count(&meta, $values.len())?;
            let mut bytes = Vec::with_capacity($values.len() * size_of::<$t>());
            for value in &$values {
                let exact = <$t>::try_from(*value).map_err(|_| mismatch(&meta, value))?;
                bytes.extend_from_slice(&exact.to_le_bytes());
            }
            bytes
        }};
    }
    let bytes: Vec<u8> = match meta.datatype {
        DataType::Bool => {
            check_count(&meta, c.bool_contents.len())?;
            c.bool_contents.iter().map(|v| u8::from(*v)).collect()
        }
        DataType::Int8 => narrow!(c.int_contents, i8),
        DataType::Int16 => narrow!(c.int_contents, i16),
        DataType::Int32 => as_is!(c.int_contents),
        DataType::Int64 => as_is!(c.int64_contents),
        DataType::Uint8 => narrow!(c.uint_contents, u8),
        DataType::Uint16 => narrow!(c.uint_contents, u16),
        DataType::Uint32 => as_is!(c.uint_contents),
        DataType::Uint64 => as_is!(c.uint64_contents),
        DataType::Fp32 => as_is!(c.fp32_contents),
        DataType::Fp64 => as_is!(c.fp64_contents),
        DataType::Bytes => return byte_strings(&meta, &c.bytes_contents),
        DataType::Fp16 | DataType::Bf16 => {
            let text = format!("input {:?}: {} has no typed contents", meta.name, meta.datatype);
            return Err(invalid(text).hint("send it as raw_input_contents"));
        }
    };
    Ok(Tensor::new(meta, bytes.into())?)
}

fn byte_strings(meta: &TensorMeta, elements: &[Bytes]) -> Result<Tensor, Problem> {
    check_count(meta, elements.len())?;
    Ok(Tensor::from_byte_strings(&meta.name, meta.shape.clone(), elements)?)
}

fn check_count(meta: &TensorMeta, found: usize) -> Result<(), Problem> {
    if found as u64 == meta.elements() {
        return Ok(());
    }
    Err(invalid(format!(
        "the contents of input {:?} hold {found} values of {}, its shape {:?} holds {}",
        meta.name,
        meta.datatype,
        meta.shape,
        meta.elements()
    )))
}

fn mismatch(meta: &TensorMeta, value: impl Display) -> Problem {
    invalid(format!("input {:?}: {value} is not a value of datatype {}", meta.name, meta.datatype))
}
