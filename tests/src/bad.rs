//! One bad request at both doors: the same problem over HTTP and over gRPC, counted once each, and the
//! agent answers a good one afterwards.

use crate::grpc::{self, GrpcClient};
use crate::http::{HttpClient, HttpResponse};
use crate::world::Agent;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use protocol::tensor::Tensor;
use serde_json::{Value, json};

/// How a problem is said at both doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400 and `INVALID_ARGUMENT`.
    Invalid,
    /// 413 and `RESOURCE_EXHAUSTED`.
    TooLarge,
    /// 403 and `PERMISSION_DENIED`.
    Forbidden,
}

impl Kind {
    fn statuses(self) -> (u16, u16, &'static str) {
        match self {
            Self::Invalid => (400, 3, "invalid_request"),
            Self::TooLarge => (413, 8, "too_large"),
            Self::Forbidden => (403, 7, "unauthorised"),
        }
    }

    /// Refuses an HTTP answer that is not this problem, in the standard's shape, with `text` in it.
    ///
    /// # Errors
    /// What is different.
    pub fn check_http(self, response: &HttpResponse, text: &str) -> anyhow::Result<()> {
        let (status, _, code) = self.statuses();
        let body = response.json()?;
        let said = body["error"].as_str().context("no error in the standard's shape")?;
        ensure!(
            response.status == status && body["code"] == code,
            "HTTP {} {body}",
            response.status
        );
        ensure!(
            said.contains(text) && said.ends_with(')'),
            "{text:?} or a hint is missing: {said}"
        );
        Ok(())
    }

    /// Refuses a gRPC answer that is not this problem, with `text` in it.
    ///
    /// # Errors
    /// What is different.
    pub fn check_grpc(self, answer: &grpc::GrpcAnswer, text: &str) -> anyhow::Result<()> {
        let (_, status, code) = self.statuses();
        ensure!(answer.status == status && answer.code == code, "{answer:?}");
        ensure!(answer.text.contains(text) && answer.text.ends_with(')'), "{text:?}: {answer:?}");
        Ok(())
    }
}

/// The body of a request with binary tensors, and the length of its JSON.
pub fn binary_body(inputs: &[Tensor], parameters: &Value, outputs: &Value) -> (usize, Vec<u8>) {
    let input = |t: &Tensor| {
        json!({
            "name": t.name(), "datatype": t.datatype(), "shape": t.shape(),
            "parameters": { "binary_data_size": t.data().len() },
        })
    };
    let inputs_json: Vec<Value> = inputs.iter().map(input).collect();
    let head = json!({ "parameters": parameters, "inputs": inputs_json, "outputs": outputs });
    let mut body = head.to_string().into_bytes();
    let len = body.len();
    inputs.iter().for_each(|t| body.extend_from_slice(t.data()));
    (len, body)
}

/// Asks over HTTP, with binary tensors.
///
/// # Errors
/// The connection breaks.
pub fn ask_http(
    agent: &Agent,
    model: &str,
    inputs: &[Tensor],
    parameters: &Value,
) -> anyhow::Result<HttpResponse> {
    ask_over(&mut agent.client()?, model, inputs, parameters)
}

/// The same over a connection that is there.
///
/// # Errors
/// It breaks.
pub fn ask_over(
    client: &mut HttpClient,
    model: &str,
    inputs: &[Tensor],
    parameters: &Value,
) -> anyhow::Result<HttpResponse> {
    let (len, body) = binary_body(inputs, parameters, &json!([]));
    let len = len.to_string();
    let headers = [("Inference-Header-Content-Length", len.as_str())];
    client.post(&format!("/v2/models/{model}/infer"), &headers, &body)
}

/// The counter of refused requests of one kind.
///
/// # Errors
/// The agent does not answer.
pub fn refusals(agent: &Agent, kind: &str) -> anyhow::Result<u64> {
    let status = agent.status()?;
    status["counters"]["refusals"][kind].as_u64().with_context(|| format!("no counter {kind}"))
}

/// Sends one bad input through both doors.
///
/// # Errors
/// It is answered, or refused otherwise, or not counted.
pub fn check_input(
    agent: &Agent,
    model: &str,
    input: &Tensor,
    kind: Kind,
    text: &str,
) -> anyhow::Result<()> {
    let before = refusals(agent, "invalid")?;
    let inputs = std::slice::from_ref(input);
    kind.check_http(&ask_http(agent, model, inputs, &json!({}))?, text)?;
    let client = GrpcClient::connect(agent.grpc_address())?;
    kind.check_grpc(&client.infer(&grpc::request(model, inputs))?, text)?;
    let counted = refusals(agent, "invalid")? - before;
    if counted != 2 {
        bail!("{counted} of 2 refusals were counted");
    }
    Ok(())
}

/// One element of `BYTES`.
///
/// # Errors
/// It is larger than a tensor may be.
pub fn bytes_input(name: &str, items: &[impl AsRef<[u8]>]) -> anyhow::Result<Tensor> {
    Ok(Tensor::from_byte_strings(name, vec![i64::try_from(items.len())?], items)?)
}

/// The most memory that a process ever had, in kB.
///
/// # Errors
/// It is gone, or this is no Linux.
pub fn peak_kb(id: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM line")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

/// The body of a gRPC call, whatever the message is.
pub fn frame(message: &[u8]) -> Bytes {
    grpc::framed(message)
}
