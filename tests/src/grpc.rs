//! The smallest gRPC client that sends whatever a test wants to send: good messages, bytes that are
//! none, half a message, other hosts.

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::HeaderMap;
use prost::Message;
use protocol::tensor::Tensor;
use protocol::wire::inference::model_infer_request::InferInputTensor;
use protocol::wire::inference::{ModelInferRequest, ModelInferResponse};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Compressed or not, and the length of the message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// One HTTP/2 connection.
pub struct GrpcClient {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    authority: String,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcAnswer {
    /// The gRPC status; 0 is good.
    pub status: u16,
    /// What is said about it.
    pub text: String,
    /// The word for the kind of problem.
    pub code: String,
    /// The encoded message.
    pub message: Bytes,
}

impl GrpcAnswer {
    /// The message.
    ///
    /// # Errors
    /// A failure instead.
    pub fn inference(&self) -> anyhow::Result<ModelInferResponse> {
        anyhow::ensure!(self.status == 0, "status {}: {}", self.status, self.text);
        Ok(ModelInferResponse::decode(self.message.clone())?)
    }
}

/// A request with these inputs, as raw contents.
pub fn request(model: &str, inputs: &[Tensor]) -> ModelInferRequest {
    let input = |t: &Tensor| InferInputTensor {
        name: t.name().to_owned(),
        datatype: t.datatype().to_string(),
        shape: t.shape().to_vec(),
        ..Default::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: inputs.iter().map(input).collect(),
        raw_input_contents: inputs.iter().map(|t| t.data().clone()).collect(),
        ..Default::default()
    }
}

/// A message with the five bytes that stand before it.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + PREFIX_BYTES);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

impl GrpcClient {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or what listens is no HTTP/2 server.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        let send = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let (send, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(connection);
            anyhow::Ok(send)
        })?;
        Ok(Self { runtime, send, authority: address.to_string() })
    }

    /// `ModelInfer`.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn infer(&self, request: &ModelInferRequest) -> anyhow::Result<GrpcAnswer> {
        self.send(&[], framed(&request.encode_to_vec()), true)
    }

    /// `ModelInfer` with these headers and this body. An `:authority` among the headers replaces
    /// the right one; without an end the body is never complete.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn send(
        &self,
        headers: &[(&str, &str)],
        body: Bytes,
        end: bool,
    ) -> anyhow::Result<GrpcAnswer> {
        let other = headers.iter().find(|(name, _)| *name == ":authority").map(|(_, value)| *value);
        let authority = other.unwrap_or(&self.authority);
        let uri = format!("http://{authority}/inference.GRPCInferenceService/ModelInfer");
        let mut request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(':')) {
            request = request.header(*name, *value);
        }
        let request = request.body(())?;
        let exchange = exchange(self.send.clone(), request, body, end);
        let patience = Duration::from_secs(60);
        self.runtime.block_on(async { tokio::time::timeout(patience, exchange).await })?
    }
}

async fn exchange(
    send: SendRequest<Bytes>,
    request: http::Request<()>,
    mut body: Bytes,
    end: bool,
) -> anyhow::Result<GrpcAnswer> {
    let (response, mut stream) = send.ready().await?.send_request(request, false)?;
    let upload = async move {
        while body.has_remaining() {
            stream.reserve_capacity(body.len().min(1 << 20));
            match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                Some(Ok(room)) => {
                    let part = body.split_to(room.min(body.len()));
                    let last = end && body.is_empty();
                    if stream.send_data(part, last).is_err() {
                        break;
                    }
                }
                _ => break, // it was answered before all was sent
            }
        }
        std::future::pending::<()>().await; // dropping the stream would reset it
    };
    tokio::select! {
        answer = receive(response) => answer,
        () = upload => anyhow::bail!("never"),
    }
}

/// All data of an answer, and the trailers behind it.
///
/// # Errors
/// The stream breaks off.
pub(crate) async fn whole(mut body: RecvStream) -> anyhow::Result<(Bytes, Option<HeaderMap>)> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.put_slice(&data);
    }
    Ok((bytes.freeze(), body.trailers().await?))
}

async fn receive(response: h2::client::ResponseFuture) -> anyhow::Result<GrpcAnswer> {
    let (head, body) = response.await?.into_parts();
    let (bytes, trailers) = whole(body).await?;
    let trailers = trailers.unwrap_or_default();
    let find = |name: &str| {
        let value = head.headers.get(name).or_else(|| trailers.get(name))?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(GrpcAnswer {
        status: find("grpc-status").context("no grpc-status")?.parse()?,
        text: decoded(&find("grpc-message").unwrap_or_default()),
        code: find("outrigger-code").unwrap_or_default(),
        message: if bytes.len() > PREFIX_BYTES {
            bytes.slice(PREFIX_BYTES..)
        } else {
            Bytes::new()
        },
    })
}

/// Takes gRPC's percent-encoding away.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.filter(|_| *first == b'%').and_then(|p| u8::from_str_radix(p, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
