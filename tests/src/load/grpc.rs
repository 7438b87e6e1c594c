//! A caller over gRPC: one stream of a shared HTTP/2 connection for each call.

use super::{Target, carrier, check_numbers};
use crate::grpc::{PREFIX_BYTES, framed, whole};
use anyhow::{Context, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use protocol::wire::inference::ModelInferResponse;
use std::sync::Arc;

/// How servers say that they have too much to do: `RESOURCE_EXHAUSTED`, `UNAVAILABLE`.
const OVERLOADED: [&str; 2] = ["8", "14"];

#[derive(Clone)]
pub(super) struct Caller {
    connection: SendRequest<Bytes>,
    uri: String,
    authorization: Option<String>,
    message: Bytes,
    expected: Arc<Vec<f32>>,
}

impl Caller {
    pub(super) async fn connect(
        target: &Target,
        message: &Bytes,
        authorization: Option<String>,
    ) -> anyhow::Result<Self> {
        let stream = carrier(target, b"h2").await?;
        let (connection, driver) = h2::client::handshake(stream).await?;
        tokio::spawn(driver); // an error of it is an error of the calls
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        let uri =
            format!("{scheme}://{}/inference.GRPCInferenceService/ModelInfer", target.address);
        let (message, expected) = (framed(message), target.expected.clone());
        Ok(Self { connection, uri, authorization, message, expected })
    }

    /// Asks; whether there was an answer, or the server has too much to do.
    pub(super) async fn ask(&mut self) -> anyhow::Result<bool> {
        let request = Request::post(&self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        };
        let request = request.body(())?;
        self.connection = self.connection.clone().ready().await?;
        let (response, mut send) = self.connection.send_request(request, false)?;
        send.send_data(self.message.clone(), true)?;
        let (head, body) = response.await?.into_parts();
        let (message, trailers) = whole(body).await?;
        let status = |headers: &http::HeaderMap| headers.get("grpc-status").cloned();
        let status = trailers.as_ref().and_then(status).or_else(|| status(&head.headers));
        let said = trailers.as_ref().unwrap_or(&head.headers).get("grpc-message");
        if status.as_ref().is_some_and(|status| OVERLOADED.iter().any(|code| status == code)) {
            return Ok(false);
        }
        ensure!(status.is_some_and(|status| status == "0"), "a failed call: {said:?}");
        let message = message.get(PREFIX_BYTES..).context("an empty answer")?;
        let answer = ModelInferResponse::decode(message)?;
        let tensor = answer.raw_output_contents.first().context("no tensor")?;
        check_numbers(tensor, &self.expected)?;
        Ok(true)
    }
}
