//! A look at an encoded `ModelInferRequest` before it is decoded. A decoded message can take a
//! hundred times the memory of its bytes: an empty input is two bytes on the wire. So lists are
//! counted, and numbers weighed, while they are still bytes.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::limits::{PARAMETERS_MAX_COUNT, TENSOR_MAX_RANK, TENSORS_MAX_BYTES, TENSORS_MAX_COUNT};
use crate::problem::{Problem, ProblemCode};
use crate::tensor::InvalidTensor;

/// The memory of one element of `bytes_contents`, beside its bytes.
const ELEMENT_BYTES: u64 = 32;
/// Fields beside the lists, each at most a few times: a later one replaces an earlier one.
const OTHERS_MAX: usize = 1024;

/// Refuses what would decode to more than the limits allow. What is no valid encoding is let
/// through: decoding says so.
///
/// # Errors
/// [`ProblemCode::TooLarge`], or [`ProblemCode::InvalidRequest`] for a shape without end.
pub fn check_encoded_request(message: &[u8]) -> Result<(), Problem> {
    let mut counts = Counts::default();
    let whole = fields(message, &mut |field, body| match field {
        4 => counts.parameters(),
        5 => {
            counts.tensors[0] += 1;
            check_count(counts.tensors[0])?;
            input(body, &mut counts)
        }
        6 => {
            counts.tensors[1] += 1;
            check_count(counts.tensors[1])?;
            output(body, &mut counts)
        }
        7 => {
            counts.tensors[2] += 1;
            check_count(counts.tensors[2])
        }
        _ => counts.other(),
    });
    whole.map(drop)
}

#[derive(Default)]
struct Counts {
    /// Inputs, wanted outputs, raw contents.
    tensors: [usize; 3],
    parameters: usize,
    others: usize,
    decoded_bytes: u64,
}

impl Counts {
    /// Parameters of the request and of all its tensors; each list is counted again once decoded.
    fn parameters(&mut self) -> Result<(), Problem> {
        self.parameters += 1;
        if self.parameters <= PARAMETERS_MAX_COUNT * (1 + 2 * TENSORS_MAX_COUNT) {
            return Ok(());
        }
        Err(too_large(format!("more than {} parameters in one request", self.parameters - 1)))
    }

    fn other(&mut self) -> Result<(), Problem> {
        self.others += 1;
        if self.others <= OTHERS_MAX {
            return Ok(());
        }
        Err(too_large(format!("more than {OTHERS_MAX} fields beside tensors and parameters")))
    }

    fn weigh(&mut self, bytes: u64) -> Result<(), Problem> {
        self.decoded_bytes = self.decoded_bytes.saturating_add(bytes);
        if self.decoded_bytes <= TENSORS_MAX_BYTES {
            return Ok(());
        }
        Err(InvalidTensor::Total(self.decoded_bytes).into())
    }
}

fn check_count(count: usize) -> Result<(), Problem> {
    if count <= TENSORS_MAX_COUNT { Ok(()) } else { Err(InvalidTensor::Count(count).into()) }
}

fn too_large(text: String) -> Problem {
    Problem::new(ProblemCode::TooLarge, text).hint("leave out what is not needed")
}

fn input(message: &[u8], counts: &mut Counts) -> Result<(), Problem> {
    let mut rank = 0;
    let mut shape = |body: &[u8]| {
        rank += varints(body).max(1);
        if rank > TENSOR_MAX_RANK as u64 {
            let text = format!("a tensor has at most {TENSOR_MAX_RANK} dimensions");
            let hint = "the model's metadata has its shapes";
            return Err(Problem::new(ProblemCode::InvalidRequest, text).hint(hint));
        }
        Ok(())
    };
    fields(message, &mut |field, body| match field {
        3 => shape(body),
        4 => counts.parameters(),
        5 => contents(body, counts),
        _ => counts.other(),
    })
}

fn output(message: &[u8], counts: &mut Counts) -> Result<(), Problem> {
    fields(message, &mut |field, _| if field == 2 { counts.parameters() } else { counts.other() })
}

/// Numbers as protobuf carries them: packed, or one by one.
fn contents(message: &[u8], counts: &mut Counts) -> Result<(), Problem> {
    fields(message, &mut |field, body| {
        counts.weigh(match field {
            1 => varints(body).max(1),
            2 | 4 => varints(body).max(1) * 4,
            3 | 5 => varints(body).max(1) * 8,
            6 | 7 => (body.len() as u64).max(8),
            _ => body.len() as u64 + ELEMENT_BYTES,
        })
    })
}

/// How many varints there are, which is how many bytes end one.
fn varints(packed: &[u8]) -> u64 {
    packed.iter().filter(|byte| **byte < 0x80).count() as u64
}

/// Calls `each` with every field and its bytes; numbers have none. Stops without an error where the
/// encoding breaks.
fn fields(
    mut message: &[u8],
    each: &mut impl FnMut(u32, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    while !message.is_empty() {
        let Ok((field, kind)) = decode_key(&mut message) else { return Ok(()) };
        if kind == WireType::LengthDelimited {
            let Ok(len) = decode_varint(&mut message) else { return Ok(()) };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let Some((body, rest)) = message.split_at_checked(len) else { return Ok(()) };
            each(field, body)?;
            message = rest;
        } else {
            each(field, &[])?;
            if skip_field(kind, field, &mut message, DecodeContext::default()).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inference::model_infer_request::{
        InferInputTensor, InferRequestedOutputTensor,
    };
    use crate::wire::inference::{InferParameter, InferTensorContents, ModelInferRequest};
    use bytes::Bytes;
    use prost::Message;

    fn check(message: &ModelInferRequest) -> Option<ProblemCode> {
        check_encoded_request(&message.encode_to_vec()).err().map(|problem| problem.code)
    }

    fn inputs(count: usize) -> ModelInferRequest {
        let inputs = vec![InferInputTensor::default(); count];
        ModelInferRequest { inputs, ..Default::default() }
    }

    fn typed(contents: InferTensorContents) -> ModelInferRequest {
        let input = InferInputTensor { contents: Some(contents), ..Default::default() };
        ModelInferRequest { inputs: vec![input], ..Default::default() }
    }

    #[test]
    fn lists_are_counted_before_they_are_decoded() {
        let large = Some(ProblemCode::TooLarge);
        assert_eq!(
            (check(&inputs(64)), check(&inputs(65)), check(&inputs(10_000))),
            (None, large, large)
        );
        let outputs = vec![InferRequestedOutputTensor::default(); 65];
        assert_eq!(check(&ModelInferRequest { outputs, ..Default::default() }), large);
        let raw_input_contents = vec![Bytes::new(); 65];
        assert_eq!(check(&ModelInferRequest { raw_input_contents, ..Default::default() }), large);
        let parameters = (0..9000).map(|i| (i.to_string(), InferParameter::default())).collect();
        assert_eq!(check(&ModelInferRequest { parameters, ..Default::default() }), large);
        let mut shaped = inputs(1);
        shaped.inputs[0].shape = vec![1; 8];
        assert_eq!(check(&shaped), None);
        shaped.inputs[0].shape = vec![1; 9];
        assert_eq!(check(&shaped), Some(ProblemCode::InvalidRequest));
        let names: Vec<u8> = b"\x0a\x00".repeat(OTHERS_MAX + 1); // the model's name, again and again
        assert_eq!(check_encoded_request(&names).unwrap_err().code, ProblemCode::TooLarge);
    }

    #[test]
    fn numbers_are_weighed_as_they_will_be() {
        let limit = usize::try_from(TENSORS_MAX_BYTES).unwrap();
        let int64 =
            |count| InferTensorContents { int64_contents: vec![1; count], ..Default::default() };
        assert_eq!(check(&typed(int64(limit / 8))), None);
        assert_eq!(check(&typed(int64(limit / 8 + 1))), Some(ProblemCode::TooLarge));
        let texts = |count| InferTensorContents {
            bytes_contents: vec![Bytes::new(); count],
            ..Default::default()
        };
        assert_eq!(check(&typed(texts(1 << 20))), None);
        assert_eq!(check(&typed(texts(3 << 20))), Some(ProblemCode::TooLarge));
    }

    #[test]
    fn garbage_is_left_to_the_decoder() {
        for bytes in
            [&b"\xff\xff\xff\xff"[..], b"\x2a\xff", b"\x2a\xff\xff\xff\xff\xff\x01", b"\x00"]
        {
            assert_eq!(check_encoded_request(bytes), Ok(()), "{bytes:?}");
        }
    }
}
