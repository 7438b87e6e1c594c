//! A caller over gRPC: an HTTP/2 connection of its own, one call after the other.

use super::{KeyHolder, Said};
use crate::grpc::{PREFIX_BYTES, framed, request, whole};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use prost::Message;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::{Tensor, TensorMeta};
use protocol::wire::inference::infer_parameter::ParameterChoice;
use protocol::wire::inference::model_infer_request::InferRequestedOutputTensor;
use protocol::wire::inference::model_infer_response::InferOutputTensor;
use protocol::wire::inference::{InferParameter, ModelInferResponse};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection.
pub struct Grpc {
    send: SendRequest<Bytes>,
    uri: String,
    authorization: String,
}

impl Grpc {
    /// Connects.
    ///
    /// # Errors
    /// Nobody is there, or somebody else.
    pub async fn connect(who: &KeyHolder) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(who.address).await?;
        tcp.set_nodelay(true)?;
        let mut tls = (*who.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let name = "localhost".try_into()?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
        let (send, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection); // an error of it is an error of the calls
        let uri = format!("https://{}/inference.GRPCInferenceService/ModelInfer", who.address);
        Ok(Self { send, uri, authorization: who.authorization.clone() })
    }

    /// Asks a model once.
    ///
    /// # Errors
    /// The connection breaks, or what comes is no answer.
    pub async fn ask(
        &mut self,
        model: &str,
        (inputs, outputs): (&[Tensor], &[String]),
        timeout_us: i64,
    ) -> anyhow::Result<Said> {
        let mut message = request(model, inputs);
        let choice = ParameterChoice::Int64Param(timeout_us);
        let timeout = InferParameter { parameter_choice: Some(choice) };
        message.parameters = [("timeout".to_owned(), timeout)].into();
        let named = |name: &String| InferRequestedOutputTensor {
            name: name.clone(),
            ..InferRequestedOutputTensor::default()
        };
        message.outputs = outputs.iter().map(named).collect();
        let call = http::Request::post(&self.uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", &self.authorization)
            .body(())?;
        self.send = self.send.clone().ready().await?;
        let (answer, mut body) = self.send.send_request(call, false)?;
        body.send_data(framed(&message.encode_to_vec()), true)?;
        let (head, body) = answer.await?.into_parts();
        let (message, trailers) = whole(body).await?;
        said(trailers.as_ref().unwrap_or(&head.headers), &message)
    }
}

fn said(trailers: &HeaderMap, message: &Bytes) -> anyhow::Result<Said> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").context("no status")? {
        "0" => {
            let message = message.get(PREFIX_BYTES..).context("an empty answer")?;
            Ok(Ok(outputs(ModelInferResponse::decode(message)?)?))
        }
        status => {
            let codes = (0..=11).map(ProblemCode::from_number);
            let code = codes.into_iter().find(|code| text("outrigger-code") == Some(code.as_str()));
            let said = text("grpc-message").unwrap_or_default();
            let Some(code) = code else { bail!("an untyped refusal: {status} {said}") };
            let retry_ms = text("grpc-retry-pushback-ms").and_then(|wait| wait.parse().ok());
            Ok(Err(Problem::new(code, said).retry_after_ms(retry_ms.unwrap_or(0))))
        }
    }
}

fn outputs(answer: ModelInferResponse) -> anyhow::Result<Vec<Tensor>> {
    let ModelInferResponse { outputs, raw_output_contents, .. } = answer;
    ensure!(outputs.len() == raw_output_contents.len(), "tensors without bytes");
    let tensor = |(said, data): (InferOutputTensor, Bytes)| {
        let meta = TensorMeta::new(&said.name, said.datatype.parse()?, said.shape)?;
        Ok(Tensor::new(meta, data)?)
    };
    outputs.into_iter().zip(raw_output_contents).map(tensor).collect()
}
