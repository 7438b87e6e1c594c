//! A collector of traces, figures and lines of the log: a real server on loopback, in the clear on one port and over
//! TLS on another, over HTTP our own, over gRPC one of OpenTelemetry's services (`tests/python/otlp_grpc.py`). It keeps
//! each export that it is sent, until OpenTelemetry's own library reads them (`tests/python/otlp_judge.py`).

use crate::certificates::Certificates;
use crate::python::Environment;
use crate::world::eventually;
use anyhow::Context;
use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What judges, and what takes gRPC: the messages, the names of attributes, the protocol.
const PACKAGES: [&str; 3] =
    ["opentelemetry-proto==1.45.2", "opentelemetry-semantic-conventions==0.66b2", "grpcio==1.85.3"];
/// How long something may take to arrive: spans wait a second for others.
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector that runs until it is dropped, or the test's process ends.
pub struct Collector {
    endpoints: Endpoints,
    /// By which its certificate is trusted.
    ca_file: PathBuf,
    folder: PathBuf,
    judge: Environment,
    /// The server of OpenTelemetry's; it ends with its stdin.
    foreign: Option<Child>,
}

struct Endpoints {
    clear: String,
    tls: String,
}

/// A span, as OpenTelemetry's library reads it.
#[derive(Debug, Clone)]
pub struct Span(Value);

impl Span {
    /// One of its fields.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// An attribute.
    pub fn attribute(&self, key: &str) -> &Value {
        &self.0["attributes"][key]
    }

    /// Whether its parent is in another process.
    pub fn has_remote_parent(&self) -> bool {
        self.0["remote"] == true
    }

    /// Whether it is a part of the other, and lies within it.
    pub fn is_within(&self, outer: &Self) -> bool {
        let times = |span: &Self| (span.0["start_ns"].as_u64(), span.0["end_ns"].as_u64());
        let ((start, end), (from, to)) = (times(self), times(outer));
        self.text("parent") == outer.text("id")
            && self.text("trace") == outer.text("trace")
            && from <= start
            && end <= to
    }
}

impl Collector {
    /// Starts one over HTTP. `None`, with the reason printed, when the judge cannot be got.
    ///
    /// # Errors
    /// No Python, or no port.
    pub fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(judge) = Environment::with(&PACKAGES)? else { return Ok(None) };
        let certificates = Certificates::new()?;
        let tls = Arc::new(link::tls::server(certificates.identity(), &[], &[])?);
        let (folder, ca_file) = (collected(folder)?, written(folder, &certificates)?);
        let numbers = Arc::<AtomicUsize>::default();
        let (of_clear, of_tls) = (folder.clone(), folder.clone());
        let counter = numbers.clone();
        let clear = listen(move |stream| serve(stream, &counter, &of_clear))?;
        let tls_port = listen(move |stream| {
            let Ok(connection) = ServerConnection::new(tls.clone()) else { return };
            serve(StreamOwned::new(connection, stream), &numbers, &of_tls);
        })?;
        let endpoints =
            Endpoints { clear: format!("http://{clear}"), tls: format!("https://{tls_port}") };
        Ok(Some(Self { endpoints, ca_file, folder, judge, foreign: None }))
    }

    /// The same over gRPC.
    ///
    /// # Errors
    /// No Python, or a server that does not start.
    pub fn start_grpc(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(judge) = Environment::with(&PACKAGES)? else { return Ok(None) };
        let certificates = Certificates::new()?;
        let (folder, ca_file) = (collected(folder)?, written(folder, &certificates)?);
        let (chain, key) = certificates.identity_pem();
        let identity = ca_file.with_file_name("collector-identity.pem");
        std::fs::write(&identity, key + &chain)?;
        let mut command = judge.command("otlp_grpc.py");
        command.args([&folder, &identity]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut ports = String::new();
        BufReader::new(child.stdout.as_mut().context("a pipe")?).read_line(&mut ports)?;
        let (clear, tls) = ports.trim().split_once(' ').context("the collector does not start")?;
        let endpoints = Endpoints {
            clear: format!("http://127.0.0.1:{clear}"),
            tls: format!("https://127.0.0.1:{tls}"),
        };
        Ok(Some(Self { endpoints, ca_file, folder, judge, foreign: Some(child) }))
    }

    /// Its URL, in the clear.
    pub fn endpoint(&self) -> &str {
        &self.endpoints.clear
    }

    /// Its URL over TLS, and the certificate by which it is trusted there.
    pub fn tls_endpoint(&self) -> (&str, &Path) {
        (&self.endpoints.tls, &self.ca_file)
    }

    /// The different values of a header over all exports; none is one too.
    pub fn headers(&self, name: &str) -> BTreeSet<Option<String>> {
        let read = |file: PathBuf| {
            let text = std::fs::read(file.with_extension("headers")).unwrap_or_default();
            let headers: BTreeMap<String, String> =
                serde_json::from_slice(&text).unwrap_or_default();
            headers.get(name).cloned()
        };
        self.files().into_iter().map(read).collect()
    }

    /// All exports that are whole, in their order.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_none());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    /// All that arrived of a signal (`traces`, `metrics`, `logs`): spans, data points, or lines.
    ///
    /// # Errors
    /// The judge does not take them; with what it said.
    pub fn told(&self, signal: &str) -> anyhow::Result<Vec<Value>> {
        let files = self.files();
        let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        let files: Vec<&str> =
            files.iter().map(AsRef::as_ref).filter(|file| file.ends_with(signal)).collect();
        let said = self.judge.run("otlp_judge.py", &files)?;
        said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// All spans that arrived.
    ///
    /// # Errors
    /// The judge does not take them; with what it said.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        Ok(self.told("traces")?.into_iter().map(Span).collect())
    }

    /// Waits until what arrived of a signal is `enough`, and gives that.
    ///
    /// # Errors
    /// It does not come, or the judge does not take it.
    pub fn wait<T>(
        &self,
        signal: &str,
        enough: impl Fn(Vec<Value>) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut seen = 0;
        let found = eventually(&format!("enough {signal}"), PATIENCE, || {
            let files = self.files().len();
            if std::mem::replace(&mut seen, files) == files {
                return None; // nothing new to judge
            }
            match self.told(signal) {
                Ok(told) => enough(told).map(Ok),
                Err(error) => Some(Err(error)),
            }
        });
        found.with_context(|| format!("in {}", self.folder.display()))?
    }

    /// Waits for so many spans of a trace; all that arrived of it.
    ///
    /// # Errors
    /// They do not come.
    pub fn trace(&self, trace: &str, spans: usize) -> anyhow::Result<Vec<Span>> {
        self.wait("traces", |told| {
            let mut found: Vec<_> = told.into_iter().map(Span).collect();
            found.retain(|span| span.text("trace") == trace);
            (found.len() >= spans).then_some(found)
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(mut child) = self.foreign.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn collected(folder: &Path) -> anyhow::Result<PathBuf> {
    let folder = folder.join("collected");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The file with the certificate by which the collector is trusted.
fn written(folder: &Path, certificates: &Certificates) -> anyhow::Result<PathBuf> {
    let path = folder.join("collector-ca.pem");
    std::fs::write(&path, certificates.ca_pem())?;
    Ok(path)
}

/// Serves each connection on a thread of its own; where.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(stream: impl Read + Write, numbers: &AtomicUsize, folder: &Path) {
    let mut stream = BufReader::new(stream);
    while let Some((headers, body)) = read(&mut stream) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let answer = match keep(folder, number, &headers, &body) {
            Ok(()) => "200 OK",
            Err(_) => "500 No Room",
        };
        let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// An export appears by a rename, behind its headers.
fn keep(
    folder: &Path,
    number: usize,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> std::io::Result<()> {
    let path = headers.get("request").and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let signal = path.rsplit('/').next().unwrap_or_default();
    let name = format!("{number:06}-{signal}");
    std::fs::write(folder.join(format!("{name}.headers")), serde_json::to_vec(headers)?)?;
    let part = folder.join(format!("{name}.part"));
    std::fs::write(&part, body)?;
    std::fs::rename(part, folder.join(name))
}

/// One request; nothing at the end of the connection.
fn read(stream: &mut BufReader<impl Read>) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|len| *len > 0)?;
    headers.insert("request".to_owned(), line.trim().to_owned());
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((headers, body))
}
