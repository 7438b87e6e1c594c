//! The calls of a soak, by their number: most are right, some are wrong in ways of their own.

use super::versions::Versions;
use crate::bench::Row;
use crate::fashion::{IMAGE_BYTES, request_body};
use crate::http::{HttpClient, HttpResponse};
use anyhow::{Context, ensure};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// The demo model, which may ask the cloud.
    Fashion,
    /// The model whose versions change.
    Changing,
    /// Half a JSON body.
    Truncated,
    /// Fewer bytes than the shape says.
    WrongSize,
    /// A model that nobody has.
    Nobody,
    /// A body that is no picture.
    NoPicture,
}

impl Call {
    /// One of ten is wrong.
    pub(super) fn of(number: u64) -> Self {
        match number % 40 {
            9 => Self::Truncated,
            19 => Self::WrongSize,
            29 => Self::Nobody,
            39 => Self::NoPicture,
            even if even % 2 == 0 => Self::Fashion,
            _ => Self::Changing,
        }
    }

    /// Makes the call; a good one must be answered rightly, a bad one refused as it deserves.
    pub(super) fn make(
        self,
        client: &mut HttpClient,
        versions: &Versions,
        outcome: &Outcome,
    ) -> anyhow::Result<()> {
        let pixels = [7; IMAGE_BYTES];
        let (len, body) = request_body(&pixels, &json!({ "timeout": 30_000_000 }));
        let cut = &body[..body.len() - 1];
        match self {
            Self::Fashion => {
                let answer = infer(client, "fashion", len, &body)?;
                ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
                let (said, raw) = answer.split()?;
                ensure!(raw.len() == 40, "{} bytes of logits", raw.len());
                ensure!(said["parameters"]["placement"].is_string(), "no placement: {said}");
                outcome.answered.fetch_add(1, Relaxed);
            }
            Self::Changing => {
                versions.ask(client)?;
                outcome.answered.fetch_add(1, Relaxed);
            }
            Self::Truncated => refused(&infer(client, "fashion", len, &body[..len / 2])?, 400)?,
            Self::WrongSize => refused(&infer(client, "fashion", len, cut)?, 400)?,
            Self::Nobody => refused(&infer(client, "nobody", len, &body)?, 404)?,
            Self::NoPicture => {
                let text = json!({ "inputs": [{
                    "name": "image", "datatype": "BYTES", "shape": [1], "data": ["no picture"],
                }] });
                let text = text.to_string();
                refused(&infer(client, "fashion", text.len(), text.as_bytes())?, 400)?;
            }
        }
        if !matches!(self, Self::Fashion | Self::Changing) {
            outcome.refused.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

fn infer(
    client: &mut HttpClient,
    model: &str,
    json_len: usize,
    body: &[u8],
) -> anyhow::Result<HttpResponse> {
    let len = json_len.to_string();
    let headers = [("Inference-Header-Content-Length", len.as_str())];
    client.post(&format!("/v2/models/{model}/infer"), &headers, body)
}

/// Refused with this status, in the standard's shape.
fn refused(answer: &HttpResponse, status: u16) -> anyhow::Result<()> {
    let said = answer.json().context("a refusal without JSON")?;
    ensure!(answer.status == status, "status {} instead of {status}: {said}", answer.status);
    ensure!(said["error"].is_string(), "no error in {said}");
    Ok(())
}

/// What became of the calls.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Outcome {
    pub(super) fn calls(&self) -> u64 {
        self.answered.load(Relaxed) + self.refused.load(Relaxed)
    }

    pub(super) fn row(&self) -> Row {
        Row(vec![
            ("calls", json!(self.calls())),
            ("answered", json!(self.answered.load(Relaxed))),
            ("refused_as_wrong", json!(self.refused.load(Relaxed))),
            ("lost", json!(0)),
        ])
    }
}
