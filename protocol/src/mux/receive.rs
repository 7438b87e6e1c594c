//! The receiving half of a stream.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

use super::frame::MuxError;
use crate::limits::STREAM_WINDOW_BYTES;

/// Small payloads are put together in pieces of this size, so that a stream of single bytes takes no
/// more memory than any other.
const PIECE_BYTES: usize = 1 << 10;

/// What came of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Chunk(Bytes),
    /// Nothing yet.
    Nothing,
    /// The peer ended the stream in order, and all was read.
    End,
    /// The peer gave the stream up, with this code.
    Reset(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Reset(u32),
}

#[derive(Debug)]
pub(super) struct Receive {
    /// Somebody may read.
    pub(super) is_held: bool,
    state: State,
    /// Nothing is read any more: the code, and whether the peer must still be told.
    stopped: Option<(u32, bool)>,
    /// The peer must still be told that everything arrived.
    received_due: bool,
    pieces: VecDeque<BytesMut>,
    /// What the peer may still send, and what was read since that was said.
    left: u32,
    owed: u32,
}

impl Receive {
    pub(super) fn new(window: u32) -> Self {
        Self {
            is_held: true,
            state: State::Open,
            stopped: None,
            received_due: false,
            pieces: VecDeque::new(),
            left: window,
            owed: 0,
        }
    }

    /// A payload was announced.
    pub(super) fn expect(&mut self, number: u32, length: u32) -> Result<(), MuxError> {
        if self.state != State::Open {
            return Err(MuxError::AfterEnd(number));
        }
        self.left = self.left.checked_sub(length).ok_or(MuxError::Credit(number))?;
        Ok(())
    }

    /// Keeps what arrived; how much of it nobody will read.
    pub(super) fn take(&mut self, payload: &[u8]) -> usize {
        if self.stopped.is_some() {
            return payload.len();
        }
        if payload.is_empty() {
            return 0;
        }
        match self.pieces.back_mut() {
            Some(last) if last.capacity() - last.len() >= payload.len() => {
                last.extend_from_slice(payload);
            }
            _ => {
                let mut piece = BytesMut::with_capacity(payload.len().max(PIECE_BYTES));
                piece.extend_from_slice(payload);
                self.pieces.push_back(piece);
            }
        }
        0
    }

    /// The peer ended it in order.
    pub(super) fn end(&mut self) {
        self.state = State::Ended;
        self.received_due = true;
    }

    /// The peer gave it up; how much of what arrived nobody will read.
    pub(super) fn handle_reset(&mut self, number: u32, code: u32) -> Result<usize, MuxError> {
        if self.state != State::Open {
            return Err(MuxError::AfterEnd(number));
        }
        self.state = State::Reset(code);
        Ok(self.drop_pieces())
    }

    fn drop_pieces(&mut self) -> usize {
        self.pieces.drain(..).map(|piece| piece.len()).sum()
    }

    pub(super) fn read(&mut self, max: usize) -> Read {
        if let State::Reset(code) = self.state {
            return Read::Reset(code);
        }
        let Some(first) = self.pieces.front_mut() else {
            return if self.state == State::Ended { Read::End } else { Read::Nothing };
        };
        if first.len() > max {
            return Read::Chunk(first.split_to(max).freeze());
        }
        let whole = self.pieces.pop_front().unwrap_or_default();
        Read::Chunk(whole.freeze())
    }

    pub(super) fn ended(&self) -> Option<Option<u32>> {
        match self.state {
            State::Open => None,
            State::Ended => Some(None),
            State::Reset(code) => Some(Some(code)),
        }
    }

    /// Nothing more is read: how much was not, and whether the peer must be told.
    pub(super) fn stop(&mut self, code: u32) -> (usize, bool) {
        let tell = self.state == State::Open && self.stopped.is_none();
        if self.stopped.is_none() {
            self.stopped = Some((code, tell));
        }
        (self.drop_pieces(), tell)
    }

    /// So much was read, or will not be. Whether the peer should hear now that it may send more.
    pub(super) fn owe(&mut self, bytes: usize) -> bool {
        if self.state != State::Open {
            return false; // nothing more comes
        }
        self.owed += u32::try_from(bytes).unwrap_or(0);
        self.owed >= STREAM_WINDOW_BYTES / 4
    }

    pub(super) fn take_stop(&mut self) -> Option<u32> {
        let (code, tell) = self.stopped.as_mut()?;
        std::mem::take(tell).then_some(*code)
    }

    pub(super) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received_due)
    }

    pub(super) fn take_credit(&mut self) -> Option<u32> {
        let worth = self.state == State::Open && self.owed >= STREAM_WINDOW_BYTES / 4;
        worth.then(|| {
            let bytes = std::mem::take(&mut self.owed);
            self.left += bytes;
            bytes
        })
    }

    /// Ended by the peer, and nobody reads.
    pub(super) fn is_over(&self) -> bool {
        self.state != State::Open && !self.is_held
    }
}
