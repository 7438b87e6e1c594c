//! A closed loop of callers: each of N has one request under way, and sends the next as soon as its
//! answer is there. Requests are encoded once and every answer is checked; the callers share one
//! thread, so that they take little from a server on the same machine.

mod grpc;
mod http1;
pub mod open;
pub mod wrk;

use anyhow::{Context, ensure};
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// What is asked of whom, and what must come back.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The request.
    pub ask: Ask,
    /// The numbers of the one tensor in the answer.
    pub expected: Arc<Vec<f32>>,
    /// For a server that speaks TLS.
    pub tls: Option<Tls>,
}

/// TLS to a server of a fleet.
#[derive(Debug, Clone)]
pub struct Tls(Arc<rustls::ClientConfig>);

impl Tls {
    /// Trusts the CA whose certificate this is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_fleet(ca_pem: &Path) -> anyhow::Result<Self> {
        let ca = link::pki::chain_from_pem(&std::fs::read(ca_pem)?)?.remove(0);
        Ok(Self(Arc::new(link::tls::client(&ca, None, b"http/1.1")?)))
    }
}

/// What carries a caller's bytes.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// One request, encoded.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The bytes of an HTTP/1.1 request; in the answer the tensor's bytes stand last.
    Http(Bytes),
    /// A `ModelInferRequest` over gRPC; all callers share one connection.
    Grpc {
        /// The message.
        message: Bytes,
        /// What the caller shows, where it must.
        authorization: Option<String>,
    },
}

impl Ask {
    /// `POST path` with more headers and a body.
    pub fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let len = body.len();
        let mut head =
            format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        Self::Http([head.as_bytes(), body].concat().into())
    }
}

/// How long the answers took, and how many calls were refused.
type Called = (Vec<Duration>, usize);

/// Who is refused comes back after this.
const COME_BACK_AFTER: Duration = Duration::from_millis(5);
/// Of one caller: a server that refuses so many answers nobody.
const REFUSALS_MAX: usize = 10_000;

/// Callers who are connected.
pub struct Callers {
    runtime: Runtime,
    callers: Vec<Caller>,
    refused: usize,
}

enum Caller {
    Http(http1::Connection),
    Grpc(grpc::Caller),
}

impl Caller {
    /// Whether there was an answer, or the server has too much to do.
    async fn ask(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Http(connection) => Ok(connection.ask().await?.is_none()),
            Self::Grpc(caller) => caller.ask().await,
        }
    }

    /// Calls until `end`, and at least so often; how long each answer took, and how many calls were
    /// refused before they were answered: whoever is refused asks again a moment later.
    async fn call_until(&mut self, end: Instant, least: usize) -> anyhow::Result<Called> {
        let (mut latencies, mut refused) = (Vec::new(), 0);
        let mut start = Instant::now();
        while start < end || latencies.len() < least {
            while !self.ask().await? {
                refused += 1;
                ensure!(refused < REFUSALS_MAX, "refused again and again");
                tokio::time::sleep(COME_BACK_AFTER).await;
            }
            let now = Instant::now();
            latencies.push(now - start);
            start = now;
        }
        Ok((latencies, refused))
    }
}

impl Callers {
    /// Connects `count` callers, each of which has asked once when this returns.
    ///
    /// # Errors
    /// The server is not there, or answers wrongly.
    pub fn connect(target: &Target, count: usize) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let callers = runtime.block_on(connect(target, count))?;
        let mut callers = Self { runtime, callers, refused: 0 };
        callers.call_until(Instant::now(), 1)?;
        Ok(callers)
    }

    /// All of them call for so long, at least so often together, and wait for their last answer.
    ///
    /// # Errors
    /// An answer that is wrong, or none.
    pub fn call_for(&mut self, time: Duration, least: usize) -> anyhow::Result<Vec<Duration>> {
        self.call_until(Instant::now() + time, least.div_ceil(self.callers.len().max(1)))
    }

    /// Calls that were refused since this was asked last: those callers asked again.
    pub fn take_refused(&mut self) -> usize {
        std::mem::take(&mut self.refused)
    }

    /// `least` is for each.
    fn call_until(&mut self, end: Instant, least: usize) -> anyhow::Result<Vec<Duration>> {
        let callers = std::mem::take(&mut self.callers);
        let (callers, latencies, refused) = self.runtime.block_on(async {
            let mut calls = JoinSet::new();
            for mut caller in callers {
                calls.spawn(async move {
                    let called = caller.call_until(end, least).await?;
                    anyhow::Ok((caller, called))
                });
            }
            let (mut callers, mut all, mut refused) = (Vec::new(), Vec::new(), 0);
            while let Some(done) = calls.join_next().await {
                let (caller, called) = done??;
                callers.push(caller);
                all.extend(called.0);
                refused += called.1;
            }
            anyhow::Ok((callers, all, refused))
        })?;
        self.callers = callers;
        self.refused += refused;
        Ok(latencies)
    }
}

async fn connect(target: &Target, count: usize) -> anyhow::Result<Vec<Caller>> {
    let mut callers = Vec::with_capacity(count);
    match &target.ask {
        Ask::Http(request) => {
            for _ in 0..count {
                let connection = http1::Connection::open(target, request.clone()).await?;
                callers.push(Caller::Http(connection));
            }
        }
        Ask::Grpc { message, authorization } => {
            let first = grpc::Caller::connect(target, message, authorization.clone()).await?;
            callers.extend((0..count).map(|_| Caller::Grpc(first.clone())));
        }
    }
    Ok(callers)
}

/// Whether these bytes are the expected numbers. Servers may compute on other kernels than the
/// yardstick, so the last digits may differ.
fn check_numbers(bytes: &[u8], expected: &[f32]) -> anyhow::Result<()> {
    let numbers = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
    ensure!(bytes.len() == expected.len() * 4, "{} bytes of answer", bytes.len());
    let near = |(a, b): (f32, &f32)| (a - b).abs() <= 1e-3 * (1.0 + b.abs());
    let wrong = numbers.zip(expected).position(|pair| !near(pair));
    wrong.map_or(Ok(()), |at| Err(anyhow::anyhow!("element {at} of the answer is wrong")))
}

/// A connection, with TLS where the target has it. `alpn` is what is spoken over that.
async fn carrier(target: &Target, alpn: &[u8]) -> anyhow::Result<Box<dyn Carrier>> {
    let address = target.address;
    let stream = tokio::net::TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("nobody listens at {address}"))?;
    stream.set_nodelay(true)?;
    let Some(Tls(config)) = &target.tls else { return Ok(Box::new(stream)) };
    let mut config = (**config).clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::from(address.ip());
    Ok(Box::new(connector.connect(name, stream).await?))
}
