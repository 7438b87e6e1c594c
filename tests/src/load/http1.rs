//! A caller over HTTP/1.1: one kept connection, one request after the other.

use super::{Carrier, Target, carrier, check_numbers};
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HEAD_END: &[u8] = b"\r\n\r\n";
const HEAD_MAX_BYTES: usize = 16 << 10;
/// How servers say that they have too much to do.
const OVERLOADED: [u16; 3] = [429, 503, 504];

pub(super) struct Connection {
    stream: Box<dyn Carrier>,
    request: Bytes,
    expected: Arc<Vec<f32>>,
    buffer: BytesMut,
}

impl Connection {
    pub(super) async fn open(target: &Target, request: Bytes) -> anyhow::Result<Self> {
        let stream = carrier(target, b"http/1.1").await?;
        let expected = target.expected.clone();
        Ok(Self { stream, request, expected, buffer: BytesMut::with_capacity(HEAD_MAX_BYTES) })
    }

    /// Asks; the status, if the server has too much to do.
    pub(super) async fn ask(&mut self) -> anyhow::Result<Option<u16>> {
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let head = loop {
            let end = self.buffer.windows(HEAD_END.len()).position(|window| window == HEAD_END);
            if let Some(end) = end {
                break Head::parse(&self.buffer[..end])?;
            }
            ensure!(self.buffer.len() < HEAD_MAX_BYTES, "an endless head");
            self.read().await?;
        };
        while self.buffer.len() < head.len_bytes + head.body_bytes {
            self.read().await?;
        }
        let body = &self.buffer[head.len_bytes..];
        if OVERLOADED.contains(&head.status) {
            return Ok(Some(head.status));
        }
        if head.status != 200 {
            bail!("status {}: {}", head.status, String::from_utf8_lossy(body));
        }
        let tensor = body.len().checked_sub(self.expected.len() * 4).context("a short answer")?;
        ensure!(head.json_bytes.is_none_or(|json| json == tensor), "another tensor's length");
        check_numbers(&body[tensor..], &self.expected)?;
        Ok(None)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }
}

/// What a head says.
struct Head {
    /// Its own length, with the empty line.
    len_bytes: usize,
    status: u16,
    body_bytes: usize,
    /// Of the body, those before the tensor; for servers that say so.
    json_bytes: Option<usize>,
}

impl Head {
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.context("no status line")?.parse()?;
        let (mut body_bytes, mut json_bytes) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body_bytes = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("inference-header-content-length") {
                json_bytes = Some(value.trim().parse()?);
            }
        }
        let len_bytes = bytes.len() + HEAD_END.len();
        let body_bytes = body_bytes.context("no Content-Length")?;
        Ok(Self { len_bytes, status, body_bytes, json_bytes })
    }
}
