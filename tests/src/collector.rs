//! A collector of traces: a real HTTP server on loopback that keeps each body it is sent, until
//! OpenTelemetry's own library reads them (`tests/python/otlp_judge.py`).

use crate::python::Environment;
use crate::world::eventually;
use anyhow::Context;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What judges: the messages, and the names of attributes.
const PACKAGES: [&str; 2] =
    ["opentelemetry-proto==1.45.2", "opentelemetry-semantic-conventions==0.66b2"];
/// How long spans may take to arrive: they wait a second for others.
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector that runs until the test's process ends.
pub struct Collector {
    address: SocketAddr,
    folder: PathBuf,
    judge: Environment,
    exports: Arc<Mutex<Exports>>,
}

#[derive(Default)]
struct Exports {
    files: Vec<PathBuf>,
    headers: Vec<BTreeMap<String, String>>,
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
    /// Starts one on a free port. `None`, with the reason printed, when the judge cannot be got.
    ///
    /// # Errors
    /// No Python, or no port.
    pub fn start(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(judge) = Environment::with(&PACKAGES)? else { return Ok(None) };
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, exports) = (listener.local_addr()?, Arc::<Mutex<Exports>>::default());
        let folder = folder.join("collected");
        std::fs::create_dir_all(&folder)?;
        let (kept, into) = (exports.clone(), folder.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, into) = (kept.clone(), into.clone());
                std::thread::spawn(move || serve(stream, &kept, &into));
            }
        });
        Ok(Some(Self { address, folder, judge, exports }))
    }

    /// Where spans are sent.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The different values of a header over all exports; none is one too.
    pub fn headers(&self, name: &str) -> BTreeSet<Option<String>> {
        self.exports().headers.iter().map(|headers| headers.get(name).cloned()).collect()
    }

    fn exports(&self) -> std::sync::MutexGuard<'_, Exports> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All spans that arrived.
    ///
    /// # Errors
    /// The judge does not take them; with what it said.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let files = self.exports().files.clone();
        let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
        let files: Vec<_> = files.iter().map(AsRef::as_ref).collect();
        let said = self.judge.run("otlp_judge.py", &files)?;
        said.lines().map(|line| Ok(Span(serde_json::from_str(line)?))).collect()
    }

    /// Waits for so many spans of a trace; all that arrived of it.
    ///
    /// # Errors
    /// They do not come.
    pub fn trace(&self, trace: &str, spans: usize) -> anyhow::Result<Vec<Span>> {
        let mut seen = 0;
        let found = eventually(&format!("{spans} spans of {trace}"), PATIENCE, || {
            let files = self.exports().files.len();
            if std::mem::replace(&mut seen, files) == files {
                return None; // nothing new to judge
            }
            let mut found = match self.spans() {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            found.retain(|span| span.text("trace") == trace);
            (found.len() >= spans).then_some(Ok(found))
        });
        found.with_context(|| format!("in {}", self.folder.display()))?
    }
}

fn serve(stream: TcpStream, exports: &Mutex<Exports>, folder: &Path) {
    let mut stream = BufReader::new(stream);
    while let Some((headers, body)) = read(&mut stream) {
        let mut exports = exports.lock().unwrap_or_else(PoisonError::into_inner);
        let file = folder.join(exports.files.len().to_string());
        let kept = std::fs::write(&file, &body);
        let answer = if kept.is_ok() { "200 OK" } else { "500 No Room" };
        exports.files.push(file);
        exports.headers.push(headers);
        drop(exports);
        let text = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        if stream.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// One request; nothing at the end of the connection.
fn read(stream: &mut BufReader<TcpStream>) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
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
