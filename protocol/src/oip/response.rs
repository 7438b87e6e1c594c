//! The bodies of answers: inference, metadata, errors.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::{OutputForm, data};
use crate::infer::{InferResponse, Verdict};
use crate::problem::Problem;
use crate::tensor::Tensor;

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
        let mut output = json!({
            "name": tensor.name(), "datatype": tensor.datatype(), "shape": tensor.shape(),
        });
        if form.is_binary(tensor.name()) {
            output["parameters"] = json!({ "binary_data_size": tensor.data().len() });
            binary.push(tensor);
        } else {
            output["data"] = data::render(tensor)?;
        }
        outputs.push(output);
    }
    let body = json!({
        "model_name": response.model,
        "model_version": response.verdict.version.to_string(),
        "id": response.id,
        "parameters": verdict_parameters(&response.verdict),
        "outputs": outputs,
    });
    let json = serde_json::to_vec(&body).expect("a JSON value is always JSON");
    if binary.is_empty() {
        return Ok(RenderedResponse { body: json.into(), json_len: None });
    }
    let json_len = json.len();
    let raw: usize = binary.iter().map(|t| t.data().len()).sum();
    let mut out = BytesMut::with_capacity(json_len + raw);
    out.put_slice(&json);
    binary.iter().for_each(|t| out.put_slice(t.data()));
    Ok(RenderedResponse { body: out.freeze(), json_len: Some(json_len) })
}

/// The verdict, as parameters of the response.
pub(super) fn verdict_parameters(verdict: &Verdict) -> Map<String, Value> {
    let mut parameters = Map::new();
    let mut put = |key: &str, value: Value| drop(parameters.insert(key.to_owned(), value));
    put("placement", verdict.placement.as_str().into());
    put("reason", verdict.reason.as_str().into());
    if let Some(confidence) = verdict.confidence {
        put("confidence", json!(data::shortest(confidence)));
    }
    if let Some(label) = &verdict.label {
        put("label", label.as_str().into());
    }
    put("queue_us", verdict.timing.queue_us.into());
    put("infer_us", verdict.timing.infer_us.into());
    put("network_us", verdict.timing.network_us.into());
    parameters
}

/// The standard's error body, with the code and the hint beside it.
pub fn error_body(problem: &Problem) -> Bytes {
    let mut body = json!({ "error": problem.to_string(), "code": problem.code.as_str() });
    if problem.retry_after_ms > 0 {
        body["retry_after_ms"] = problem.retry_after_ms.into();
    }
    serde_json::to_vec(&body).expect("a JSON value is always JSON").into()
}
