//! Streams over one TLS connection over TCP, where UDP is blocked: carries out what
//! [`protocol::mux`] decides. One task (`driver`) reads and writes the socket; streams leave their
//! bytes in the state that they share with it, and are woken by it.

mod driver;
mod socket;
mod stream;

pub use socket::tune;
pub use stream::{RecvStream, SendStream};

use crate::connection::Ended;
use crate::quic::Life;
use driver::Driver;
pub(crate) use driver::lost;
use protocol::mux::{Event, Mux, Side, StreamId};
use protocol::problem::ProblemCode;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

/// A connection; its clones are the same one.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Handle>);

/// Held by whoever may still speak on the connection; the last one closes it.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(ProblemCode::None, "");
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What it showed in the handshake.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What was agreed on, by its name over TCP.
    pub protocol: Vec<u8>,
}

impl Peer {
    /// As the handshake of this session showed it.
    pub fn of(address: SocketAddr, session: &rustls::CommonState) -> Self {
        Self {
            address,
            certificates: session.peer_certificates().unwrap_or_default().to_vec(),
            protocol: session.alpn_protocol().unwrap_or_default().to_vec(),
        }
    }
}

/// What the streams and the driver share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    peer: Peer,
    ended: watch::Sender<Option<Ended>>,
    /// Set when the driver has let go of the socket.
    gone: watch::Sender<bool>,
    arrived: Notify,
    may_open: Notify,
    heard: AtomicU64,
    /// A sign of life is to be asked for.
    nudged: AtomicBool,
    /// How long the peer was told that it may be silent.
    allowed_ms: AtomicU64,
    round_trip_us: AtomicU64,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    readers: HashMap<StreamId, Waker>,
    writers: HashMap<StreamId, Waker>,
    driver: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> Option<Ended> {
        self.ended.borrow().clone()
    }

    /// Notes the end, unless there was one before, and wakes whoever waits for anything.
    fn end(&self, why: Ended) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
        if !first {
            return;
        }
        let mut state = self.lock();
        let mut woken: Vec<Waker> = state.driver.take().into_iter().collect();
        woken.extend(state.readers.drain().map(|(_, waker)| waker));
        woken.extend(state.writers.drain().map(|(_, waker)| waker));
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        self.arrived.notify_waiters();
        self.may_open.notify_waiters();
    }

    fn close(&self, code: ProblemCode, reason: &str) {
        self.lock().mux.close(code.number(), reason);
        self.end(Ended::Here);
    }
}

impl State {
    /// The driver, if there is something for it to do.
    fn driver_if_wanted(&mut self) -> Option<Waker> {
        if self.mux.has_output() { self.driver.take() } else { None }
    }
}

/// Changes the state, and wakes the driver where that left something to send.
fn with<T>(shared: &Shared, change: impl FnOnce(&mut State) -> T) -> T {
    let mut state = shared.lock();
    let result = change(&mut state);
    let driver = state.driver_if_wanted();
    drop(state);
    if let Some(driver) = driver {
        driver.wake();
    }
    result
}

impl Connection {
    /// Takes over a TLS connection whose handshake is done. It is driven by a task of its own.
    /// `round_trip` is what a round took until now.
    pub fn start<S>(stream: S, side: Side, peer: Peer, round_trip: Duration, life: Life) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = State {
            mux: Mux::new(side),
            readers: HashMap::new(),
            writers: HashMap::new(),
            driver: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            peer,
            ended: watch::Sender::new(None),
            gone: watch::Sender::new(false),
            arrived: Notify::new(),
            may_open: Notify::new(),
            heard: AtomicU64::new(0),
            nudged: AtomicBool::new(false),
            allowed_ms: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(micros(round_trip)),
        });
        tokio::spawn(Driver::new(stream, side, life, shared.clone()));
        Self(Arc::new(Handle(shared)))
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    fn halves(&self, id: StreamId) -> (SendStream, RecvStream) {
        (SendStream::new(self.0.clone(), id), RecvStream::new(self.0.clone(), id))
    }

    /// Opens a stream, once the peer lets another in.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), Ended> {
        let shared = self.shared();
        loop {
            let may_open = shared.may_open.notified(); // before it is looked
            if let Some(ended) = shared.ended() {
                return Err(ended);
            }
            if let Some(id) = with(shared, |state| state.mux.open()) {
                return Ok(self.halves(id));
            }
            if shared.lock().mux.is_exhausted() {
                self.close(ProblemCode::None, "every number of a stream was used");
            }
            may_open.await;
        }
    }

    /// The next stream that the peer opens.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), Ended> {
        let shared = self.shared();
        loop {
            let arrived = shared.arrived.notified(); // before it is looked
            if let Some(ended) = shared.ended() {
                return Err(ended);
            }
            let next = shared.lock().mux.accept();
            if let Some(id) = next {
                return Ok(self.halves(id));
            }
            arrived.await;
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.shared().ended.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|ended| ended.clone()).unwrap_or(Ended::Here)
    }

    /// Waits until the socket is let go of.
    pub async fn gone(&self) {
        let _ = self.shared().gone.subscribe().wait_for(|gone| *gone).await;
    }

    /// Why it is over, if it is.
    pub fn ended(&self) -> Option<Ended> {
        self.shared().ended()
    }

    /// Ends it.
    pub fn close(&self, code: ProblemCode, reason: &str) {
        self.shared().close(code, reason);
    }

    /// Which one it is.
    pub fn stable_id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// The other end's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared().peer.address
    }

    /// How long a round takes.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.shared().round_trip_us.load(Relaxed))
    }

    /// Grows whenever something is heard.
    pub fn heard(&self) -> u64 {
        self.shared().heard.load(Relaxed)
    }

    /// Asks the other end for a sign of life.
    pub(crate) fn nudge(&self) {
        self.shared().nudged.store(true, Relaxed);
        let driver = self.shared().lock().driver.take();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// From now on the peer may be silent for so long.
    pub(crate) fn allow_silence(&self, patience: Duration) {
        let allowed_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.shared().allowed_ms.store(allowed_ms, Relaxed);
    }

    /// What the other end showed in the handshake.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.shared().peer.certificates
    }

    /// What was agreed on, by its name over TCP.
    pub fn protocol(&self) -> &[u8] {
        &self.shared().peer.protocol
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whom the events of the state machine wake.
fn woken(shared: &Shared, state: &mut State) -> (Vec<Waker>, Option<Ended>, bool) {
    let (mut wakers, mut ended, mut pong) = (Vec::new(), None, false);
    while let Some(event) = state.mux.poll_event() {
        match event {
            Event::Arrived => shared.arrived.notify_waiters(),
            Event::MayOpen => shared.may_open.notify_waiters(),
            Event::Readable(id) => wakers.extend(state.readers.remove(&id)),
            Event::Writable(id) => wakers.extend(state.writers.remove(&id)),
            Event::Pong => pong = true,
            Event::Closed { code } => {
                let reason = state.mux.reason().to_owned();
                let code = ProblemCode::from_number(code);
                ended = Some(Ended::ByPeer { code, reason });
            }
        }
    }
    (wakers, ended, pong)
}
