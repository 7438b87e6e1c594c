//! Accepting connections, TCP and Unix socket, with a limit on everything that a caller could pile
//! up: connections, requests of one connection, headers, and time without progress.

mod unix;

pub use unix::{SocketError, UnixSocket};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tower::Service;

/// Connections of one listener; the next ones wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 1024;
/// How long the first head of a connection may take, unless the configuration says otherwise.
pub const FIRST_HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a later head may take to arrive, and an idle connection is kept.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(75);
/// Calls at the same time on one HTTP/2 connection.
pub const STREAMS_MAX: u32 = 256;
/// Headers of one request over HTTP/2; over HTTP/1.1 they share the connection's buffer.
pub const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// What is read ahead of an HTTP/1.1 connection.
const HTTP1_BUFFER_MAX_BYTES: usize = 256 << 10;
/// What a peer may send before it has to wait for us, per call and per connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A peer that answers no ping for so long is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_PATIENCE: Duration = Duration::from_secs(20);
/// How long running requests may take to end when the program is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A socket that accepts connections.
pub enum Listener {
    /// A loopback address.
    Tcp(TcpListener),
    /// A socket file.
    Unix(UnixSocket),
}

enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Self::Unix(socket) => Ok(Connection::Unix(socket.accept().await?)),
        }
    }
}

/// What becomes of connections that ask for nothing.
#[derive(Clone)]
pub struct Patience {
    /// How long the first head of a connection may take.
    pub first_head: Duration,
    /// Called for each connection that was closed because it took longer.
    pub on_late: Arc<dyn Fn() + Send + Sync>,
}

/// Serves until `stop` holds true, then lets running requests end.
pub async fn serve(
    listener: Listener,
    router: Router,
    patience: Patience,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok(Connection::Tcp(io)) => {
                spawn(&builder, &graceful, io, router.clone(), (patience.clone(), place.ok()));
            }
            Ok(Connection::Unix(io)) => {
                spawn(&builder, &graceful, io, router.clone(), (patience.clone(), place.ok()));
            }
            Err(error) => {
                // Out of file descriptors, or a peer that went away: neither ends the server.
                tracing::debug!(%error, "no connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    bound(&mut builder);
    builder
}

/// Sets every limit on what one connection may pile up, for HTTP/1 and HTTP/2. Streams that a peer
/// opens and resets at once are bounded by h2 itself (20 that wait to be accepted).
pub fn bound(builder: &mut Builder<TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HTTP1_BUFFER_MAX_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE);
}

fn spawn<S, P>(
    builder: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
    stream: S,
    router: Router,
    (patience, place): (Patience, P),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let service = TowerToHyperService::new(Noting { service: router, asked: asked.clone() });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _place = place; // given back when the connection ends
        let silence = async {
            tokio::time::sleep(patience.first_head).await;
            if asked.load(Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            },
            () = silence => (patience.on_late)(),
        }
    });
}

/// Notes that a connection asked for something.
#[derive(Clone)]
struct Noting {
    service: Router,
    asked: Arc<AtomicBool>,
}

impl<R> Service<R> for Noting
where
    Router: Service<R>,
{
    type Response = <Router as Service<R>>::Response;
    type Error = <Router as Service<R>>::Error;
    type Future = <Router as Service<R>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.asked.store(true, Relaxed);
        self.service.call(request)
    }
}
