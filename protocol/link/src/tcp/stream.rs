//! The two halves of a stream.

use super::{Handle, Shared, with};
use crate::frames::LinkError;
use bytes::Bytes;
use protocol::mux::{Priority, Read, Stopped, StreamId, Write};
use protocol::problem::ProblemCode;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// The sending half.
#[derive(Debug)]
pub struct SendStream {
    handle: Arc<Handle>,
    id: StreamId,
}

impl Drop for SendStream {
    fn drop(&mut self) {
        with(self.shared(), |state| {
            state.writers.remove(&self.id);
            state.mux.release_sender(self.id);
        });
    }
}

impl SendStream {
    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        Self { handle, id }
    }

    fn shared(&self) -> &Shared {
        &self.handle.0
    }

    /// How urgent what is sent from now on is.
    pub fn set_priority(&self, priority: Priority) {
        self.shared().lock().mux.set_priority(self.id, priority);
    }

    /// Sends a piece, whole.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), LinkError> {
        let (shared, id) = (self.shared(), self.id);
        poll_fn(|context| {
            if let Some(ended) = shared.ended() {
                return Poll::Ready(Err(ended.into()));
            }
            with(shared, |state| match state.mux.write(id, &chunk) {
                Write::Taken => Poll::Ready(Ok(())),
                Write::Stopped(code) => Poll::Ready(Err(reset(code))),
                Write::Ended => Poll::Ready(Err(LinkError::Ended)),
                Write::Full => {
                    state.writers.insert(id, context.waker().clone());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Nothing more is sent; `false` if the stream was over already.
    pub fn finish(&mut self) -> bool {
        with(self.shared(), |state| state.mux.finish(self.id))
    }

    /// Gives up sending.
    pub fn reset(&mut self, code: ProblemCode) {
        with(self.shared(), |state| state.mux.reset(self.id, code.number()));
    }

    /// Waits until the peer wants no more, or until all of it has arrived.
    ///
    /// # Errors
    /// The connection is over, or the stream was given up here.
    pub async fn stopped(&self) -> Result<Option<ProblemCode>, LinkError> {
        let (shared, id) = (self.shared(), self.id);
        poll_fn(|context| {
            if let Some(ended) = shared.ended() {
                return Poll::Ready(Err(ended.into()));
            }
            let mut state = shared.lock();
            match state.mux.stopped(id) {
                Stopped::Yes(code) => Poll::Ready(Ok(Some(ProblemCode::from_number(code)))),
                Stopped::Received => Poll::Ready(Ok(None)),
                Stopped::Ended => Poll::Ready(Err(LinkError::Ended)),
                Stopped::No => {
                    state.writers.insert(id, context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct RecvStream {
    handle: Arc<Handle>,
    id: StreamId,
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        with(self.shared(), |state| {
            state.readers.remove(&self.id);
            state.mux.release_receiver(self.id);
        });
    }
}

impl RecvStream {
    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        Self { handle, id }
    }

    fn shared(&self) -> &Shared {
        &self.handle.0
    }

    /// The next bytes, at most so many; `None` at the end of the stream.
    ///
    /// # Errors
    /// The stream or the connection is over.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, LinkError> {
        let (shared, id) = (self.shared(), self.id);
        poll_fn(|context| {
            if let Some(ended) = shared.ended() {
                return Poll::Ready(Err(ended.into()));
            }
            with(shared, |state| match state.mux.read(id, max) {
                Read::Chunk(chunk) => Poll::Ready(Ok(Some(chunk))),
                Read::End => Poll::Ready(Ok(None)),
                Read::Reset(code) => Poll::Ready(Err(reset(code))),
                Read::Nothing => {
                    state.readers.insert(id, context.waker().clone());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Nothing more is read.
    pub fn stop(&mut self, code: ProblemCode) {
        with(self.shared(), |state| state.mux.stop(self.id, code.number()));
    }

    /// Waits until the peer gives up sending; `None` if it ended in order.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn received_reset(&mut self) -> Result<Option<ProblemCode>, LinkError> {
        let (shared, id) = (self.shared(), self.id);
        poll_fn(|context| {
            if let Some(ended) = shared.ended() {
                return Poll::Ready(Err(ended.into()));
            }
            let mut state = shared.lock();
            match state.mux.ended(id) {
                Some(code) => Poll::Ready(Ok(code.map(ProblemCode::from_number))),
                None => {
                    state.readers.insert(id, context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn reset(code: u32) -> LinkError {
    LinkError::Reset(ProblemCode::from_number(code))
}
