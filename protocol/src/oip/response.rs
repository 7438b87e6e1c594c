//! The bodies of answers: inference, metadata, errors.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{OutputForm, data};
use crate::infer::{InferResponse, Risk, Verdict};
use crate::problem::Problem;
use crate::tensor::{DataType, Tensor};

/// The body of an inference answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedResponse {
    /// JSON, followed by the raw bytes of the binary outputs.
    pub body: Bytes,
    /// The length of the JSON, where raw bytes follow it.
    pub json_len: Option<usize>,
}

/// Writes the answer to an inference request, its verdict in the response parameters.
///
/// # Errors
/// An output that JSON cannot carry (NaN, half floats, bytes that are no UTF-8), not asked for as
/// binary.
pub fn render_response(
    response: &InferResponse,
    form: &OutputForm,
) -> Result<RenderedResponse, Problem> {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut binary: Vec<&Tensor> = Vec::new();
    for tensor in &response.outputs {
        let as_binary = form.is_binary(tensor.name());
        if as_binary {
            binary.push(tensor);
        }
        outputs.push(Output::new(tensor, as_binary)?);
    }
    let body = Body {
        id: &response.id,
        model_name: response.model.as_str(),
        model_version: response.verdict.version.to_string(),
        outputs,
        parameters: Parameters::of(&response.verdict),
    };
    let raw: usize = binary.iter().map(|t| t.data().len()).sum();
    let mut out = Vec::with_capacity(JSON_USUAL_BYTES + raw);
    serde_json::to_writer(&mut out, &body).expect("these fields are always JSON");
    if binary.is_empty() {
        return Ok(RenderedResponse { body: out.into(), json_len: None });
    }
    let json_len = out.len();
    binary.iter().for_each(|t| out.extend_from_slice(t.data()));
    Ok(RenderedResponse { body: out.into(), json_len: Some(json_len) })
}

/// What the JSON of an answer takes, where its tensors are raw.
const JSON_USUAL_BYTES: usize = 512;

/// The JSON of an answer, written without an intermediate tree: every call pays for it.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    model_name: &'a str,
    model_version: String,
    outputs: Vec<Output<'a>>,
    parameters: Parameters<'a>,
}

#[derive(Serialize)]
struct Output<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    datatype: DataType,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    shape: &'a [i64],
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

impl<'a> Output<'a> {
    fn new(tensor: &'a Tensor, as_binary: bool) -> Result<Self, Problem> {
        let data = if as_binary { None } else { Some(data::render(tensor)?) };
        let parameters = as_binary.then(|| BinarySize { binary_data_size: tensor.data().len() });
        let (datatype, name, shape) = (tensor.datatype(), tensor.name(), tensor.shape());
        Ok(Self { data, datatype, name, parameters, shape })
    }
}

/// The verdict; over gRPC the same is said by [`verdict_parameters`].
#[derive(Serialize)]
struct Parameters<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<Value>,
    infer_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    network_us: u64,
    placement: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_reason: Option<&'static str>,
    queue_us: u64,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_bytes: Option<u64>,
}

impl<'a> Parameters<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        Self {
            attempts: several(verdict.attempts),
            confidence: verdict.confidence.map(|c| json!(data::shortest(c))),
            infer_us: verdict.timing.infer_us,
            label: verdict.label.as_deref(),
            network_us: verdict.timing.network_us,
            placement: verdict.placement.as_str(),
            plan: verdict.plan.map(|plan| plan.first.as_str()),
            plan_reason: verdict.plan.map(|plan| plan.reason.as_str()),
            queue_us: verdict.timing.queue_us,
            reason: verdict.reason.as_str(),
            risk: verdict.risk.map(risk),
            saved_bytes: some(verdict.saved_bytes),
        }
    }
}

/// A number, or `unverified`.
fn risk(risk: Risk) -> Value {
    risk.at_most().map_or_else(|| "unverified".into(), Value::from)
}

/// The verdict, as parameters of the response.
pub(super) fn verdict_parameters(verdict: &Verdict) -> Map<String, Value> {
    let mut parameters = Map::new();
    let mut put = |key: &str, value: Value| drop(parameters.insert(key.to_owned(), value));
    put("placement", verdict.placement.as_str().into());
    put("reason", verdict.reason.as_str().into());
    if let Some(plan) = verdict.plan {
        put("plan", plan.first.as_str().into());
        put("plan_reason", plan.reason.as_str().into());
    }
    if let Some(confidence) = verdict.confidence {
        put("confidence", json!(data::shortest(confidence)));
    }
    if let Some(promise) = verdict.risk {
        put("risk", risk(promise));
    }
    if let Some(label) = &verdict.label {
        put("label", label.as_str().into());
    }
    put("queue_us", verdict.timing.queue_us.into());
    put("infer_us", verdict.timing.infer_us.into());
    put("network_us", verdict.timing.network_us.into());
    if let Some(attempts) = several(verdict.attempts) {
        put("attempts", attempts.into());
    }
    if let Some(saved_bytes) = some(verdict.saved_bytes) {
        put("saved_bytes", saved_bytes.into());
    }
    parameters
}

/// One attempt is the rule and goes without saying.
fn several(attempts: u32) -> Option<u32> {
    (attempts > 1).then_some(attempts)
}

/// Nothing is saved as a rule, which goes without saying either.
fn some(saved_bytes: u64) -> Option<u64> {
    (saved_bytes > 0).then_some(saved_bytes)
}

/// The standard's error body, with the code and the hint beside it.
pub fn error_body(problem: &Problem) -> Bytes {
    let mut body = json!({ "error": problem.to_string(), "code": problem.code.as_str() });
    if problem.retry_after_ms > 0 {
        body["retry_after_ms"] = problem.retry_after_ms.into();
    }
    serde_json::to_vec(&body).expect("a JSON value is always JSON").into()
}
