//! The gRPC messages of an inference, and what they mean. Raw contents stay the bytes that arrived.

use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

mod contents;
mod opening;
mod scan;
pub use opening::{OPENING_MAX_BYTES, Opening};
pub use scan::check_encoded_request;

use super::ParsedRequest;
use super::options::{Options, check_count, invalid, unknown, whole};
use super::response::verdict_parameters;
use crate::id::{InvalidName, ModelName, Version};
use crate::infer::InferResponse;
use crate::limits::DEADLINE_MAX_MS;
use crate::problem::{Problem, ProblemCode};
use crate::tensor::{Tensor, TensorMeta, check_totals};
use crate::wire::check_request_bounds;
use crate::wire::inference::infer_parameter::ParameterChoice;
use crate::wire::inference::model_infer_request::InferInputTensor;
use crate::wire::inference::model_infer_response::InferOutputTensor;
use crate::wire::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelStreamInferResponse,
};

/// Reads a `ModelInferRequest`. `timeout` is the deadline of the call itself.
///
/// # Errors
/// [`ProblemCode::InvalidRequest`], [`ProblemCode::TooLarge`] or [`ProblemCode::NotFound`], with
/// what is wrong where.
pub fn parse_request(
    message: ModelInferRequest,
    timeout: Option<Duration>,
) -> Result<ParsedRequest, Problem> {
    check_request_bounds(&message)?;
    let (model, version) = parse_names(&message.model_name, &message.model_version)?;
    let mut options = Options::default();
    for (key, parameter) in &message.parameters {
        options.set(key, &value(parameter))?;
    }
    for output in message.outputs {
        let parameters = output.parameters.iter().map(|(key, p)| (key.as_str(), value(p)));
        options.want(output.name, parameters)?;
    }
    if let Some(timeout) = timeout {
        options.limit_deadline(whole_ms(timeout));
    }
    let inputs = parse_inputs(message.inputs, message.raw_input_contents)?;
    ParsedRequest::new(model, version, message.id, inputs, options)
}

/// A model's name and version as messages say them: an empty version stands for the active one.
///
/// # Errors
/// [`ProblemCode::NotFound`]: nothing has such a name.
pub fn parse_names(model: &str, version: &str) -> Result<(ModelName, Option<Version>), Problem> {
    let absent = |e: InvalidName| Problem::new(ProblemCode::NotFound, e.to_string());
    let version = if version.is_empty() { None } else { Some(version) };
    let version = version.map(str::parse).transpose().map_err(absent)?;
    Ok((model.parse().map_err(absent)?, version))
}

/// The value of the header `grpc-timeout`: up to 8 digits and a unit. `None` for anything else.
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn whole_ms(timeout: Duration) -> u32 {
    let ms = timeout.as_millis().min(DEADLINE_MAX_MS.into());
    u32::try_from(ms).unwrap_or(DEADLINE_MAX_MS)
}

fn value(parameter: &InferParameter) -> Value {
    match &parameter.parameter_choice {
        None => Value::Null,
        Some(ParameterChoice::BoolParam(v)) => (*v).into(),
        Some(ParameterChoice::Int64Param(v)) => (*v).into(),
        Some(ParameterChoice::StringParam(v)) => v.as_str().into(),
        Some(ParameterChoice::DoubleParam(v)) => (*v).into(),
        Some(ParameterChoice::Uint64Param(v)) => (*v).into(),
    }
}

fn parse_inputs(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, Problem> {
    if inputs.is_empty() {
        return Err(invalid("a request needs at least one input"));
    }
    check_totals(inputs.iter().map(|_| 0))?;
    if !raw.is_empty() && raw.len() != inputs.len() {
        let text = format!("{} inputs, but {} raw_input_contents", inputs.len(), raw.len());
        return Err(invalid(text).hint("send all inputs raw, or all of them typed"));
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        tensors.push(parse_input(input, raw.next())?);
    }
    check_totals(tensors.iter().map(|t: &Tensor| t.data().len() as u64))?;
    Ok(tensors)
}

fn parse_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, Problem> {
    check_count(input.parameters.len())?;
    let mut size = None;
    for (key, parameter) in &input.parameters {
        match key.as_str() {
            "binary_data_size" => size = Some(whole(key, &value(parameter))?),
            _ => return Err(unknown("input parameter", key, "binary_data_size")),
        }
    }
    let meta = TensorMeta::new(&input.name, input.datatype.parse()?, input.shape)?;
    let contents = input.contents.filter(|c| *c != InferTensorContents::default());
    match (raw, contents) {
        (Some(_), Some(_)) => Err(invalid(format!(
            "input {:?} has both contents and raw_input_contents; give one of them",
            meta.name
        ))),
        (Some(raw), None) if size.is_some_and(|size| size != raw.len() as u64) => {
            let text =
                format!("input {:?} carries {} bytes, not binary_data_size", meta.name, raw.len());
            Err(invalid(text))
        }
        (Some(raw), None) => Ok(Tensor::new(meta, raw)?),
        (None, Some(contents)) => contents::parse(meta, contents),
        (None, None) if meta.elements() == 0 => Ok(Tensor::new(meta, Bytes::new())?),
        (None, None) => Err(invalid(format!("input {:?} has no data", meta.name))),
    }
}

/// The message that answers a `ModelInferRequest`; its outputs are raw.
pub fn render_response(response: InferResponse) -> ModelInferResponse {
    let verdict = verdict_parameters(&response.verdict);
    let parameters = verdict.into_iter().map(|(key, value)| (key, parameter(value))).collect();
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    for tensor in response.outputs {
        outputs.push(InferOutputTensor {
            name: tensor.name().to_owned(),
            datatype: tensor.datatype().to_string(),
            shape: tensor.shape().to_vec(),
            parameters: BTreeMap::new(),
            contents: None,
        });
        raw_output_contents.push(tensor.data().clone()); // reference-counted bytes, no copy
    }
    ModelInferResponse {
        model_name: response.model.to_string(),
        model_version: response.verdict.version.to_string(),
        id: response.id,
        parameters,
        outputs,
        raw_output_contents,
    }
}

fn parameter(value: Value) -> InferParameter {
    let choice = match value {
        Value::Bool(v) => ParameterChoice::BoolParam(v),
        Value::String(v) => ParameterChoice::StringParam(v),
        Value::Number(v) => match v.as_i64() {
            Some(whole) => ParameterChoice::Int64Param(whole),
            None => ParameterChoice::DoubleParam(v.as_f64().unwrap_or(f64::NAN)),
        },
        other => ParameterChoice::StringParam(other.to_string()),
    };
    InferParameter { parameter_choice: Some(choice) }
}

/// One response of a stream. A failure is told inside the stream, with the id of its request, and
/// the stream goes on.
pub fn stream_response(
    id: String,
    last: bool,
    result: Result<ModelInferResponse, Problem>,
) -> ModelStreamInferResponse {
    let (mut response, error_message) = match result {
        Ok(response) => (response, String::new()),
        Err(problem) => (ModelInferResponse { id, ..Default::default() }, problem.to_string()),
    };
    if last {
        response.parameters.insert("triton_final_response".into(), parameter(Value::Bool(true)));
    }
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
