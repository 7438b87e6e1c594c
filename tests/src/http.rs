//! The smallest HTTP/1.1 client that can measure a server: one keep-alive connection, no pool, no
//! runtime, so that what is timed is the server; and it sends whatever a test wants to send, also over
//! TLS.

use anyhow::{Context, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One connection.
pub struct HttpClient {
    stream: BufReader<Wire>,
    host: String,
}

/// What carries the bytes.
pub enum Wire {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over it.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Connects to a server of the fleet whose CA's certificate this is.
    ///
    /// # Errors
    /// Nobody listens, or somebody else.
    pub fn connect_tls(address: SocketAddr, ca_pem: &Path, alpn: &[u8]) -> anyhow::Result<Self> {
        let ca = link::pki::chain_from_pem(&std::fs::read(ca_pem)?)?.remove(0);
        let config = Arc::new(link::tls::client(&ca, None, alpn)?);
        let name = ServerName::from(address.ip());
        let mut connection = ClientConnection::new(config, name)?;
        let mut tcp = connect(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }

    /// How long a read or a write may take.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The JSON part of the body, and the raw bytes behind it.
    ///
    /// # Errors
    /// The body does not begin with JSON.
    pub fn split(&self) -> anyhow::Result<(Value, &[u8])> {
        let len = self.header("inference-header-content-length").map(str::parse).transpose()?;
        let (json, raw) =
            self.body.split_at_checked(len.unwrap_or(self.body.len())).context("too short")?;
        Ok((serde_json::from_slice(json)?, raw))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(self.split()?.0)
    }
}

impl HttpClient {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::over(Wire::Plain(connect(address)?), address))
    }

    /// Connects to a server of the fleet whose CA's certificate this is.
    ///
    /// # Errors
    /// Nobody listens, or somebody else.
    pub fn connect_tls(address: SocketAddr, ca_pem: &Path) -> anyhow::Result<Self> {
        Ok(Self::over(Wire::connect_tls(address, ca_pem, b"http/1.1")?, address))
    }

    fn over(wire: Wire, address: SocketAddr) -> Self {
        Self { stream: BufReader::with_capacity(64 << 10, wire), host: address.to_string() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn get(&mut self, path: &str) -> anyhow::Result<HttpResponse> {
        self.get_with(path, &[])
    }

    /// `GET path` with more headers.
    ///
    /// # Errors
    /// No answer, or none that can be read.
    pub fn get_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<HttpResponse> {
        self.send("GET", path, headers, &[])
    }

    /// `POST path` with more headers and a body.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<HttpResponse> {
        self.send("POST", path, headers, body)
    }

    /// Any request. A `Host` among the headers replaces the right one.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<HttpResponse> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
        if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.stream.get_mut().write_all(&message)?;
        self.stream.get_mut().flush()?;
        self.receive()
    }

    fn receive(&mut self) -> anyhow::Result<HttpResponse> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).context("no status line")?.parse()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = HttpResponse { status, headers, body: Vec::new() };
        let len: usize = response.header("content-length").context("no content-length")?.parse()?;
        response.body.resize(len, 0);
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end().to_owned())
    }
}
