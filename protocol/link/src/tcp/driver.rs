//! The task that owns the socket: what arrives goes into the state machine, what it wants to say goes
//! out, and both ends see that the other lives.

use super::{Shared, micros, woken};
use crate::connection::Ended;
use crate::quic::Life;
use protocol::mux::Side;
use protocol::problem::ProblemCode;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Read from, and made ready for, the socket at a time. What is ready cannot be overtaken any more.
const BUFFER_BYTES: usize = 64 << 10;
/// For the last words to arrive.
const LINGER: Duration = Duration::from_secs(1);

/// What is being done.
enum Phase {
    Running,
    /// The last words are being sent.
    Ending,
    /// They were sent; the other end may take them in.
    Lingering,
}

/// Drives one connection to its end.
pub(super) struct Driver<S> {
    stream: S,
    side: Side,
    life: Life,
    shared: Arc<Shared>,
    phase: Phase,
    input: Box<[u8]>,
    output: Vec<u8>,
    written: usize,
    tick: Pin<Box<Sleep>>,
    heard_at: Instant,
    pinged_at: Option<Instant>,
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.end(Ended::Lost("the connection was cut off".into()));
        self.shared.gone.send_replace(true);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(stream: S, side: Side, life: Life, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            side,
            life,
            shared,
            phase: Phase::Running,
            input: vec![0; BUFFER_BYTES].into(),
            output: Vec::with_capacity(BUFFER_BYTES + (16 << 10)),
            written: 0,
            tick: Box::pin(tokio::time::sleep(tick_of(life))),
            heard_at: Instant::now(),
            pinged_at: None,
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.phase {
                Phase::Running => {
                    if let Err(why) = self.run(context) {
                        self.begin_end(why);
                        continue;
                    }
                    if self.shared.ended().is_none() {
                        return Poll::Pending;
                    }
                    self.begin_end(Ended::Here);
                }
                Phase::Ending => {
                    let said = ready!(self.poll_last_words(context));
                    if said.is_err() {
                        return Poll::Ready(());
                    }
                    self.phase = Phase::Lingering;
                }
                Phase::Lingering => return self.poll_linger(context),
            }
        }
    }

    /// All that can be done now; an error ends the connection.
    fn run(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        self.shared.lock().driver = Some(context.waker().clone());
        self.read(context)?;
        self.look_at_the_clock(context)?;
        match self.poll_write(context) {
            Poll::Ready(Err(error)) => Err(lost(&error)),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        loop {
            let mut buffer = ReadBuf::new(&mut self.input);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let length = buffer.filled().len();
            if length == 0 {
                return Err(Ended::Lost("the peer ended the connection without a word".into()));
            }
            self.take_in(length)?;
        }
    }

    fn take_in(&mut self, length: usize) -> Result<(), Ended> {
        self.heard_at = Instant::now();
        self.shared.heard.fetch_add(1, Relaxed);
        let mut state = self.shared.lock();
        let taken = state.mux.handle_input(&self.input[..length]);
        let (wakers, ended, pong) = woken(&self.shared, &mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if pong && let Some(pinged_at) = self.pinged_at.take() {
            self.note_round(self.heard_at.saturating_duration_since(pinged_at));
        }
        taken.map_err(|error| Ended::Broken(error.to_string()))?;
        ended.map_or(Ok(()), Err)
    }

    /// Smoothed as TCP does it (RFC 6298).
    fn note_round(&self, took: Duration) {
        let (old, new) = (self.shared.round_trip_us.load(Relaxed), micros(took));
        let smoothed = if old == 0 { new } else { old - old / 8 + new / 8 };
        self.shared.round_trip_us.store(smoothed, Relaxed);
    }

    fn look_at_the_clock(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        if self.shared.nudged.swap(false, Relaxed) {
            self.ping();
        }
        while self.tick.as_mut().poll(context).is_ready() {
            let silent = Instant::now().saturating_duration_since(self.heard_at);
            let allowed = Duration::from_millis(self.shared.allowed_ms.load(Relaxed));
            if silent >= self.life.patience().max(allowed) {
                return Err(Ended::Silent);
            }
            if self.side == Side::Opens && self.life.keep_alive().is_some() {
                self.ping();
            }
            self.tick.as_mut().reset(tokio::time::Instant::now() + tick_of(self.life));
        }
        Ok(())
    }

    fn ping(&mut self) {
        self.shared.lock().mux.ping();
        self.pinged_at.get_or_insert_with(Instant::now);
    }

    /// Writes what there is to write, until there is nothing more.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.output.len() && !self.fill() {
                return Pin::new(&mut self.stream).poll_flush(context);
            }
            let rest = &self.output[self.written..];
            let now = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if now == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += now;
        }
    }

    /// Fetches more to write; whether there was some.
    fn fill(&mut self) -> bool {
        self.output.clear();
        self.written = 0;
        let mut state = self.shared.lock();
        state.mux.write_output(&mut self.output, BUFFER_BYTES);
        let (wakers, ..) = woken(&self.shared, &mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        !self.output.is_empty()
    }

    fn begin_end(&mut self, why: Ended) {
        if let Ended::Broken(reason) = &why {
            self.shared.lock().mux.close(ProblemCode::Protocol.number(), reason);
        }
        self.shared.end(why);
        self.phase = Phase::Ending;
        self.tick.as_mut().reset(tokio::time::Instant::now() + LINGER);
    }

    fn poll_last_words(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tick.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(self.poll_write(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// A socket that is closed with unread bytes in it resets the connection, and that may destroy the
    /// last words on their way. So what comes is read away for a while.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.tick.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            let mut buffer = ReadBuf::new(&mut self.input);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_step(context)
    }
}

/// How often it is looked whether the peer is silent.
fn tick_of(life: Life) -> Duration {
    life.keep_alive().unwrap_or(life.patience() / 4)
}

/// What an error of the socket, or of TLS on it, says.
pub(crate) fn lost(error: &io::Error) -> Ended {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => Ended::Certificate(why.to_string()),
        Some(rustls::Error::AlertReceived(alert)) if speaks_of_certificates(*alert) => {
            Ended::Certificate(format!("{alert:?}"))
        }
        Some(other) => Ended::Broken(other.to_string()),
        None => Ended::Lost(error.to_string()),
    }
}

/// As in QUIC: alerts 40 to 51, and the one for a certificate that is missing.
fn speaks_of_certificates(alert: rustls::AlertDescription) -> bool {
    let number = u8::from(alert);
    (40..52).contains(&number) || alert == rustls::AlertDescription::CertificateRequired
}
