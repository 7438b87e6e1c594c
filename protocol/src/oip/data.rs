//! The `data` array of a JSON tensor: nested or flat, of the tensor's datatype.

use bytes::Bytes;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

use crate::problem::{Problem, ProblemCode};
use crate::tensor::{DataType, Tensor, TensorMeta};

/// Reads a JSON array into the bytes of a tensor, refusing more elements than its shape holds.
pub(super) fn parse(meta: TensorMeta, raw: &RawValue) -> Result<Tensor, Problem> {
    let invalid = |text: String| Problem::new(ProblemCode::InvalidRequest, text);
    let mut flat = Flat { meta: &meta, left: meta.elements(), out: Vec::new() };
    let mut parser = serde_json::Deserializer::from_str(raw.get());
    Elements(&mut flat)
        .deserialize(&mut parser)
        .map_err(|e| invalid(format!("the data of tensor {:?}: {e}", meta.name)))?;
    if flat.left > 0 {
        let text = format!(
            "the data of tensor {:?} hold {} elements too few for its shape {:?}",
            meta.name, flat.left, meta.shape
        );
        return Err(invalid(text));
    }
    let out = Bytes::from(flat.out);
    Ok(Tensor::new(meta, out)?)
}

struct Flat<'a> {
    meta: &'a TensorMeta,
    left: u64,
    out: Vec<u8>,
}

impl Flat<'_> {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            E::custom(format_args!("more elements than its shape {:?} holds", self.meta.shape))
        })?;
        Ok(())
    }

    fn mismatch<E: Error>(&self, found: impl fmt::Display) -> E {
        E::custom(format_args!("{found} is not a value of datatype {}", self.meta.datatype))
    }

    fn push_int<E: Error>(&mut self, value: i128) -> Result<(), E> {
        self.count()?;
        macro_rules! exact {
            ($t:ty) => {
                match <$t>::try_from(value) {
                    Ok(v) => self.out.extend_from_slice(&v.to_le_bytes()),
                    Err(_) => return Err(self.mismatch(value)),
                }
            };
        }
        match self.meta.datatype {
            DataType::Uint8 => exact!(u8),
            DataType::Uint16 => exact!(u16),
            DataType::Uint32 => exact!(u32),
            DataType::Uint64 => exact!(u64),
            DataType::Int8 => exact!(i8),
            DataType::Int16 => exact!(i16),
            DataType::Int32 => exact!(i32),
            DataType::Int64 => exact!(i64),
            _ => self.push_float(value as f64)?,
        }
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)] // f64 to f32 rounds, as every JSON client expects
    fn push_float<E: Error>(&mut self, value: f64) -> Result<(), E> {
        match self.meta.datatype {
            DataType::Fp32 => self.out.extend_from_slice(&(value as f32).to_le_bytes()),
            DataType::Fp64 => self.out.extend_from_slice(&value.to_le_bytes()),
            DataType::Fp16 | DataType::Bf16 => {
                return Err(E::custom("FP16 and BF16 travel as binary tensor data only"));
            }
            _ => return Err(self.mismatch(value)),
        }
        Ok(())
    }

    fn push_text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        self.count()?;
        if self.meta.datatype != DataType::Bytes {
            return Err(self.mismatch("a string"));
        }
        let len = u32::try_from(text.len()).map_err(E::custom)?;
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

struct Elements<'a, 'b>(&'a mut Flat<'b>);

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} values", self.0.meta.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Elements(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.push_int(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.push_int(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.count()?;
        self.0.push_float(value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.count()?;
        if self.0.meta.datatype != DataType::Bool {
            return Err(self.0.mismatch(value));
        }
        self.0.out.push(value.into());
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push_text(text)
    }
}

/// The number that JSON shows with the fewest digits from which the same `f32` is read: 0.1, where
/// a plain conversion gives 0.10000000149011612.
pub(super) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::NAN)
}

/// The `data` array of an output.
pub(super) fn render(tensor: &Tensor) -> Result<Value, Problem> {
    macro_rules! numbers {
        ($t:ty) => {{
            let chunks = tensor.data().chunks_exact(size_of::<$t>());
            let values = chunks.map(|c| <$t>::from_le_bytes(c.try_into().expect("exact chunk")));
            values.map(serde_json::to_value).collect::<Result<Vec<_>, _>>()
        }};
    }
    let binary_only = |what: &str| {
        let text = format!("output {:?} holds {what}, which JSON cannot carry", tensor.name());
        Problem::new(ProblemCode::InvalidRequest, text)
            .hint("ask for it as binary: \"parameters\":{\"binary_data\":true}")
    };
    let values = match tensor.datatype() {
        DataType::Bool => Ok(tensor.data().iter().map(|b| Value::Bool(*b != 0)).collect()),
        DataType::Uint8 => numbers!(u8),
        DataType::Uint16 => numbers!(u16),
        DataType::Uint32 => numbers!(u32),
        DataType::Uint64 => numbers!(u64),
        DataType::Int8 => numbers!(i8),
        DataType::Int16 => numbers!(i16),
        DataType::Int32 => numbers!(i32),
        DataType::Int64 => numbers!(i64),
        DataType::Fp32 => {
            let chunks = tensor.data().as_chunks::<4>().0.iter();
            chunks.map(|c| serde_json::to_value(shortest(f32::from_le_bytes(*c)))).collect()
        }
        DataType::Fp64 => numbers!(f64),
        DataType::Fp16 | DataType::Bf16 => return Err(binary_only("half floats")),
        DataType::Bytes => {
            let text = |b: Bytes| String::from_utf8(b.to_vec()).map(Value::String);
            let texts = tensor.byte_elements().map(text).collect::<Result<Vec<_>, _>>();
            return texts.map(Value::Array).map_err(|_| binary_only("bytes that are no UTF-8"));
        }
    };
    let values = values.map_err(|e| Problem::new(ProblemCode::Internal, e.to_string()))?;
    if values.contains(&Value::Null) {
        return Err(binary_only("NaN or infinity"));
    }
    Ok(Value::Array(values))
}
