//! The body of an inference request.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded::{Bounded, parameters};
use super::data;
use super::options::{Options, OutputForm, check_count, invalid, unknown, whole};
use crate::id::{ModelName, Version};
use crate::infer::InferRequest;
use crate::limits::{NAME_MAX_BYTES, TENSOR_MAX_RANK, TENSORS_MAX_COUNT};
use crate::problem::Problem;
use crate::tensor::{InvalidTensor, Tensor, TensorMeta, check_totals};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    inputs: Bounded<Input<'a>, TENSORS_MAX_COUNT>,
    #[serde(default)]
    outputs: Bounded<Output, TENSORS_MAX_COUNT>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    datatype: String,
    shape: Bounded<i64, TENSOR_MAX_RANK>,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Map<String, Value>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Map<String, Value>,
}

/// A request and the form in which its answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedRequest {
    /// What is asked.
    pub request: InferRequest,
    /// How the answer is wanted.
    pub form: OutputForm,
}

impl ParsedRequest {
    pub(super) fn new(
        model: ModelName,
        version: Option<Version>,
        id: String,
        inputs: Vec<Tensor>,
        options: Options,
    ) -> Result<Self, Problem> {
        let Options { form, outputs, deadline_ms, priority, hint, sequence } = options;
        let sequence = sequence.finish()?;
        let request = InferRequest {
            model,
            version,
            id,
            inputs,
            outputs,
            deadline_ms,
            priority,
            hint,
            sequence,
        };
        Ok(Self { request, form })
    }
}

/// Reads the body of `POST /v2/models/{model}[/versions/{version}]/infer`.
///
/// `json_len` is the value of [`super::HEADER_LENGTH`], where the request has it.
///
/// # Errors
/// `InvalidRequest` or `TooLarge`, with what is wrong where.
pub fn parse_request(
    model: ModelName,
    version: Option<Version>,
    json_len: Option<usize>,
    body: &Bytes,
) -> Result<ParsedRequest, Problem> {
    let json_len = json_len.unwrap_or(body.len());
    if json_len > body.len() {
        return Err(invalid(format!(
            "Inference-Header-Content-Length is {json_len}, but the body has {} bytes",
            body.len()
        )));
    }
    let parsed: Body<'_> = serde_json::from_slice(&body[..json_len])
        .map_err(|e| invalid(format!("the body is not an inference request: {e}")))?;
    if parsed.id.len() > NAME_MAX_BYTES {
        return Err(invalid(format!("a request id has at most {NAME_MAX_BYTES} bytes")));
    }
    let mut options = Options::parse(&parsed.parameters)?;
    for list in [parsed.inputs.count, parsed.outputs.count] {
        if list > TENSORS_MAX_COUNT {
            return Err(InvalidTensor::Count(list).into());
        }
    }
    for output in parsed.outputs.items {
        let parameters = output.parameters.iter().map(|(key, value)| (key.as_str(), value.clone()));
        options.want(output.name, parameters)?;
    }
    let inputs = parse_inputs(parsed.inputs.items, body.slice(json_len..))?;
    ParsedRequest::new(model, version, parsed.id, inputs, options)
}

fn parse_inputs(inputs: Vec<Input<'_>>, mut binary: Bytes) -> Result<Vec<Tensor>, Problem> {
    if inputs.is_empty() {
        return Err(invalid("a request needs at least one input"));
    }
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        tensors.push(parse_input(input, &mut binary)?);
    }
    if !binary.is_empty() {
        return Err(invalid(format!(
            "{} bytes behind the last tensor belong to none",
            binary.len()
        ))
        .hint("binary_data_size of all inputs must add up to the bytes behind the JSON"));
    }
    check_totals(tensors.iter().map(|t| t.data().len() as u64))?;
    Ok(tensors)
}

fn parse_input(input: Input<'_>, binary: &mut Bytes) -> Result<Tensor, Problem> {
    if input.shape.count > TENSOR_MAX_RANK {
        let rank = input.shape.count;
        return Err(InvalidTensor::Rank {
            name: input.name.chars().take(NAME_MAX_BYTES).collect(),
            rank,
        }
        .into());
    }
    let meta = TensorMeta::new(&input.name, input.datatype.parse()?, input.shape.items)?;
    check_count(input.parameters.len())?;
    let mut size = None;
    for (key, value) in &input.parameters {
        match key.as_str() {
            "binary_data_size" => size = Some(whole(key, value)?),
            _ => return Err(unknown("input parameter", key, "binary_data_size")),
        }
    }
    match (size, input.data) {
        (Some(_), Some(_)) => Err(invalid(format!(
            "input {:?} has both data and binary_data_size; give one of them",
            meta.name
        ))),
        (None, None) => Err(invalid(format!("input {:?} has no data", meta.name))),
        (None, Some(raw)) => data::parse(meta, raw),
        (Some(size), None) => {
            meta.check_size(size)?;
            if size > binary.len() as u64 {
                return Err(invalid(format!(
                    "input {:?} announces {size} bytes, but only {} are left in the body",
                    meta.name,
                    binary.len()
                )));
            }
            let data = binary.split_to(usize::try_from(size).unwrap_or(usize::MAX));
            Ok(Tensor::new(meta, data)?)
        }
    }
}
