//! The body of an inference request.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

use super::data;
use crate::id::{ModelName, Version};
use crate::infer::{InferRequest, PlacementHint};
use crate::limits::{DEADLINE_MAX_MS, NAME_MAX_BYTES, PARAMETERS_MAX_COUNT};
use crate::problem::{Problem, ProblemCode};
use crate::tensor::{InvalidTensor, Tensor, TensorMeta, check_totals};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// Which outputs are wanted as raw bytes behind the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputForm {
    all_binary: bool,
    binary: BTreeSet<String>,
    json: BTreeSet<String>,
}

impl OutputForm {
    /// Whether this output is wanted as raw bytes.
    pub fn is_binary(&self, output: &str) -> bool {
        self.binary.contains(output) || (self.all_binary && !self.json.contains(output))
    }
}

/// A request and the form in which its answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedRequest {
    /// What is asked.
    pub request: InferRequest,
    /// How the answer is wanted.
    pub form: OutputForm,
}

fn invalid(text: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, text)
}

/// Reads the body of `POST /v2/models/{model}[/versions/{version}]/infer`.
///
/// `json_len` is the value of [`super::HEADER_LENGTH`], where the request has it.
///
/// # Errors
/// [`ProblemCode::InvalidRequest`] or [`ProblemCode::TooLarge`], with what is wrong where.
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
    let options = Options::parse(&parsed.parameters)?;
    let (outputs, form) = parse_outputs(parsed.outputs, options.binary_data_output)?;
    let request = InferRequest {
        model,
        version,
        id: parsed.id,
        inputs: parse_inputs(parsed.inputs, body.slice(json_len..))?,
        outputs,
        deadline_ms: options.deadline_ms,
        priority: options.priority,
        hint: options.hint,
    };
    Ok(ParsedRequest { request, form })
}

fn parse_inputs(inputs: Vec<Input<'_>>, mut binary: Bytes) -> Result<Vec<Tensor>, Problem> {
    if inputs.is_empty() {
        return Err(invalid("a request needs at least one input"));
    }
    check_totals(inputs.iter().map(|_| 0))?;
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
    let meta = TensorMeta::new(&input.name, input.datatype.parse()?, input.shape)?;
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

fn parse_outputs(
    outputs: Vec<Output>,
    all_binary: bool,
) -> Result<(Vec<String>, OutputForm), Problem> {
    if outputs.len() > crate::limits::TENSORS_MAX_COUNT {
        return Err(InvalidTensor::Count(outputs.len()).into());
    }
    let mut form = OutputForm { all_binary, ..OutputForm::default() };
    let mut names = Vec::with_capacity(outputs.len());
    for output in outputs {
        for (key, value) in &output.parameters {
            let named = match (key.as_str(), value) {
                ("binary_data", Value::Bool(true)) => &mut form.binary,
                ("binary_data", Value::Bool(false)) => &mut form.json,
                ("binary_data", _) => return Err(invalid("binary_data is true or false")),
                _ => return Err(unknown("output parameter", key, "binary_data")),
            };
            named.insert(output.name.clone());
        }
        names.push(output.name);
    }
    Ok((names, form))
}

/// The parameters of a request that are understood.
#[derive(Default)]
struct Options {
    binary_data_output: bool,
    deadline_ms: Option<u32>,
    priority: u8,
    hint: PlacementHint,
}

impl Options {
    fn parse(parameters: &Map<String, Value>) -> Result<Self, Problem> {
        if parameters.len() > PARAMETERS_MAX_COUNT {
            let text = format!("at most {PARAMETERS_MAX_COUNT} parameters are taken");
            return Err(Problem::new(ProblemCode::TooLarge, text));
        }
        let mut options = Self::default();
        for (key, value) in parameters {
            options.set(key, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), Problem> {
        match key {
            "binary_data_output" => {
                self.binary_data_output = value
                    .as_bool()
                    .ok_or_else(|| invalid("binary_data_output is true or false"))?;
            }
            // Schedule policy extension: microseconds; 0 stands for the server's default.
            "timeout" => self.deadline_ms = deadline_from_timeout(whole(key, value)?),
            "priority" => self.priority = u8::try_from(whole(key, value)?).unwrap_or(u8::MAX),
            "placement" => {
                self.hint = serde_json::from_value(value.clone())
                    .map_err(|_| invalid("placement is \"auto\", \"edge\" or \"cloud\""))?;
            }
            _ => {
                let known = "binary_data_output, timeout (microseconds), priority, placement";
                return Err(unknown("request parameter", key, known));
            }
        }
        Ok(())
    }
}

fn deadline_from_timeout(timeout_us: u64) -> Option<u32> {
    let ms = timeout_us.div_ceil(1000).min(DEADLINE_MAX_MS.into());
    u32::try_from(ms).ok().filter(|ms| *ms > 0)
}

fn whole(key: &str, value: &Value) -> Result<u64, Problem> {
    let text = value.as_str().and_then(|s| s.parse().ok());
    value.as_u64().or(text).ok_or_else(|| invalid(format!("{key} is a whole number")))
}

fn unknown(what: &str, key: &str, known: &str) -> Problem {
    let key: String = key.chars().take(NAME_MAX_BYTES).collect();
    invalid(format!("unknown {what} {key:?}")).hint(format!("known here: {known}"))
}
