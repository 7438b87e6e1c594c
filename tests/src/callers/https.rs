//! A caller over HTTPS: one kept HTTP/1.1 connection, one request after the other.

use super::{KeyHolder, Said};
use crate::bad::binary_body;
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::{Tensor, TensorMeta};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HEAD_END: &[u8] = b"\r\n\r\n";
const HEAD_MAX_BYTES: usize = 16 << 10;

/// A request, encoded.
#[derive(Debug, Clone)]
pub struct Call(Bytes);

impl Call {
    /// Asks a model; `parameters` are those of the request.
    pub fn new(
        who: &KeyHolder,
        model: &str,
        (inputs, outputs): (&[Tensor], &[String]),
        parameters: &Value,
    ) -> Self {
        let mut parameters = parameters.clone();
        parameters["binary_data_output"] = json!(true);
        let outputs: Vec<Value> = outputs.iter().map(|name| json!({ "name": name })).collect();
        let (json_len, body) = binary_body(inputs, &parameters, &json!(outputs));
        let head = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\
             Content-Length: {}\r\nInference-Header-Content-Length: {json_len}\r\n\r\n",
            who.address,
            who.authorization,
            body.len()
        );
        Self([head.as_bytes(), &body].concat().into())
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Bytes of JSON in front of those of tensors.
    json_bytes: usize,
    body: Bytes,
}

/// A connection.
pub struct Https {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Https {
    /// Connects.
    ///
    /// # Errors
    /// Nobody is there, or somebody else.
    pub async fn connect(who: &KeyHolder) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(who.address).await?;
        tcp.set_nodelay(true)?;
        let name = "localhost".try_into()?;
        let stream = TlsConnector::from(who.tls.clone()).connect(name, tcp).await?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(HEAD_MAX_BYTES) })
    }

    /// Calls once.
    ///
    /// # Errors
    /// The connection breaks, or what comes is no answer.
    pub async fn call(&mut self, call: &Call) -> anyhow::Result<Reply> {
        self.stream.write_all(&call.0).await?;
        self.buffer.clear();
        let end = loop {
            let end = self.buffer.windows(HEAD_END.len()).position(|window| window == HEAD_END);
            if let Some(end) = end {
                break end;
            }
            ensure!(self.buffer.len() < HEAD_MAX_BYTES, "an endless head");
            self.read().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let field = |wanted: &str| {
            let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
            let mut found = fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.next().and_then(|(_, value)| value.trim().parse::<usize>().ok())
        };
        let len = field("content-length").context("no Content-Length")?;
        let json_bytes = field("inference-header-content-length").unwrap_or(len);
        let begin = end + HEAD_END.len();
        while self.buffer.len() < begin + len {
            self.read().await?;
        }
        let body = self.buffer.split_to(begin + len).freeze().slice(begin..);
        Ok(Reply { status, json_bytes, body })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

impl Reply {
    /// The JSON of it.
    ///
    /// # Errors
    /// It has none.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(self.body.get(..self.json_bytes).context("a short body")?)?)
    }

    /// What was said.
    ///
    /// # Errors
    /// Nothing that the standard knows.
    pub fn said(&self) -> anyhow::Result<Said> {
        let json = self.json()?;
        if self.status != 200 {
            let text = json["error"].as_str().with_context(|| format!("{} {json}", self.status))?;
            let codes = (0..=11).map(ProblemCode::from_number);
            let code = codes.into_iter().find(|code| json["code"] == code.as_str());
            let code = code.with_context(|| format!("an untyped refusal: {json}"))?;
            let retry_ms = json["retry_after_ms"].as_u64().unwrap_or(0);
            return Ok(Err(Problem::new(code, text).retry_after_ms(retry_ms.try_into()?)));
        }
        let mut rest = self.body.slice(self.json_bytes..);
        let mut outputs = Vec::new();
        for output in json["outputs"].as_array().context("no outputs")? {
            let size = output["parameters"]["binary_data_size"].as_u64().context("not binary")?;
            let text = |key: &str| output[key].as_str().unwrap_or_default().to_owned();
            let shape = serde_json::from_value(output["shape"].clone())?;
            let meta = TensorMeta::new(&text("name"), text("datatype").parse()?, shape)?;
            let size = usize::try_from(size)?;
            if size > rest.len() {
                bail!("a short body");
            }
            outputs.push(Tensor::new(meta, rest.split_to(size))?);
        }
        Ok(Ok(outputs))
    }
}
