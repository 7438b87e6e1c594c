//! OTLP over gRPC: one unary call for each batch, on an HTTP/2 connection that is kept while it lasts. It is
//! driven only while a call is under way, so that it may be found closed: then one more is made, once.

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use protocol::otlp::{Exported, Signal};
use protocol::problem::chain;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use ureq::http::{HeaderName, HeaderValue, Request, Response};

use super::collector::{ANSWER_MAX_BYTES, Attempt, CollectorError, PATIENCE};
use super::headers::read_headers;
use super::settings::Place;
use super::{OtlpSettings, Service};
use crate::{roots, tls};

pub(super) struct Grpc {
    runtime: Runtime,
    place: Place,
    tls: Option<TlsConnector>,
    method: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    user_agent: String,
    kept: Mutex<Option<SendRequest<Bytes>>>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("cannot connect to {address}")]
    Connect { address: String, source: std::io::Error },
    #[error("{0:?} is no host's name")]
    Name(String),
    #[error("the connection failed")]
    Http2(#[from] h2::Error),
    #[error("no request can be made")]
    Request(#[from] ureq::http::Error),
    #[error("there was no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the answer is too long")]
    TooLong,
}

/// How a call ended, by gRPC's numbers.
struct Ended {
    status: u32,
    message: String,
    body: Bytes,
}

impl Grpc {
    pub(super) fn new(
        settings: &OtlpSettings,
        service: &Service,
        signal: Signal,
    ) -> Result<Self, CollectorError> {
        let place = settings.place()?;
        let tls = match place.is_tls {
            true => Some(trust(settings)?),
            false => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.map_err(CollectorError::Thread)?,
            place,
            tls,
            method: signal.method(),
            headers: read_headers(&settings.headers_file)?,
            user_agent: format!("{}/{}", service.name, service.version),
            kept: Mutex::new(None),
        })
    }

    pub(super) fn take(&self, body: &[u8]) -> Attempt {
        let call = async {
            let called = tokio::time::timeout(PATIENCE, self.call(framed(body)));
            called.await.unwrap_or(Err(CallError::Late))
        };
        match self.runtime.block_on(call) {
            Ok(Ended { status: 0, body, .. }) => Attempt::Taken(Exported::read(&body)),
            Ok(Ended { status, message, .. }) => {
                let why = format!("the collector answers with status {status}: {message}");
                match may_be_taken_later(status) {
                    true => Attempt::TryAgain { wait: None, why },
                    false => Attempt::Refused(why),
                }
            }
            Err(error) => {
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Attempt::TryAgain { wait: None, why: chain(&error) }
            }
        }
    }

    async fn call(&self, body: Bytes) -> Result<Ended, CallError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kept) = kept
            && let Ok(ended) = self.call_on(kept, body.clone()).await
        {
            return Ok(ended);
        }
        let fresh = self.connect().await?;
        self.call_on(fresh, body).await
    }

    async fn call_on(
        &self,
        connection: SendRequest<Bytes>,
        body: Bytes,
    ) -> Result<Ended, CallError> {
        let mut ready = connection.ready().await?;
        let (answer, mut sending) = ready.send_request(self.request()?, false)?;
        sending.send_data(body, true)?; // what the peer's window has no room for waits in memory
        let ended = read(answer.await?).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(ready);
        Ok(ended)
    }

    fn request(&self) -> Result<Request<()>, CallError> {
        let Place { is_tls, host, port } = &self.place;
        let scheme = if *is_tls { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{host}:{port}{}", self.method))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", &self.user_agent);
        for (name, value) in &self.headers {
            request = request.header(name.clone(), value.clone());
        }
        Ok(request.body(())?)
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, CallError> {
        let Place { host, port, .. } = &self.place;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |source| CallError::Connect { address: format!("{host}:{port}"), source };
        let stream = TcpStream::connect((bare, *port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else { return begin(stream).await };
        let name = ServerName::try_from(bare.to_owned());
        let name = name.map_err(|_| CallError::Name(bare.to_owned()))?;
        begin(tls.connect(name, stream).await.map_err(failed)?).await
    }
}

async fn begin<S>(stream: S) -> Result<SendRequest<Bytes>, CallError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection); // its end is seen by the next call
    Ok(send)
}

fn trust(settings: &OtlpSettings) -> Result<TlsConnector, CollectorError> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(roots::roots(&settings.ca_file)?);
    let config = ClientConfig::builder_with_provider(tls::provider());
    let config = config.with_safe_default_protocol_versions().map_err(std::io::Error::other);
    let config = config.map_err(CollectorError::Thread)?;
    let mut config = config.with_root_certificates(trusted).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Not compressed, and its length in front.
fn framed(body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + body.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.put_slice(body);
    frame.freeze()
}

/// Reads the message and how the call ended; a short answer says that in its head.
async fn read(answer: Response<RecvStream>) -> Result<Ended, CallError> {
    let (head, mut stream) = answer.into_parts();
    let mut body = BytesMut::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        let _ = stream.flow_control().release_capacity(piece.len()); // it is no more than has come
        if body.len() + piece.len() > usize::try_from(ANSWER_MAX_BYTES).unwrap_or(usize::MAX) {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    let told = |name: &str| trailers.get(name).or_else(|| head.headers.get(name));
    let number = told("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok());
    let message = told("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    let status = number.unwrap_or_else(|| by_http(head.status.as_u16()));
    let body = body.freeze();
    let body = if body.len() > 5 { body.slice(5..) } else { Bytes::new() };
    Ok(Ended { status, message: message.to_owned(), body })
}

/// What an answer means that is none of gRPC's, by its mapping from HTTP.
fn by_http(status: u16) -> u32 {
    match status {
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The ends after which OTLP wants another attempt: cancelled, too late, used up, aborted, out of range,
/// unavailable, lost.
fn may_be_taken_later(status: u32) -> bool {
    matches!(status, 1 | 4 | 8 | 10 | 11 | 14 | 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_ends_are_worth_another_attempt() {
        let again: Vec<_> = (0..=16).filter(|status| may_be_taken_later(*status)).collect();
        assert_eq!(again, [1, 4, 8, 10, 11, 14, 15]);
        assert_eq!(&framed(b"ab")[..], b"\0\0\0\0\x02ab");
    }
}
