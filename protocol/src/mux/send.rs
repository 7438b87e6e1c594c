//! The sending half of a stream.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;

use super::frame::{Header, Kind, MuxError};
use super::{Priority, QUEUE_BYTES};

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It will be sent.
    Taken,
    /// Too much waits: try again when the stream is writable.
    Full,
    /// The peer wants no more, with this code.
    Stopped(u32),
    /// The stream was ended here before.
    Ended,
}

/// How the peer stands to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It reads on.
    No,
    /// It wants no more, with this code.
    Yes(u32),
    /// All of it has arrived.
    Received,
    /// The stream was given up here.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing is written any more; the end is not sent yet.
    Finishing,
    /// The end was sent.
    Finished,
    /// Given up; whether that was sent.
    Reset {
        sent: bool,
        code: u32,
    },
}

#[derive(Debug)]
pub(super) struct Send {
    pub(super) priority: Priority,
    /// Somebody may write.
    pub(super) is_held: bool,
    /// The peer must hear of the stream first.
    opening: bool,
    state: State,
    stopped: Option<u32>,
    received: bool,
    queue: VecDeque<Bytes>,
    queued: usize,
    credit: u64,
    /// Whether it waits for its turn.
    has_turn: bool,
    /// Whether somebody was told that there is no room.
    was_full: bool,
}

impl Send {
    pub(super) fn new(opening: bool, window: u32) -> Self {
        Self {
            priority: Priority::default(),
            is_held: true,
            opening,
            state: State::Open,
            stopped: None,
            received: false,
            queue: VecDeque::new(),
            queued: 0,
            credit: window.into(),
            has_turn: false,
            was_full: false,
        }
    }

    pub(super) fn write(&mut self, chunk: &Bytes) -> Write {
        if let Some(code) = self.stopped {
            return Write::Stopped(code);
        }
        if self.state != State::Open {
            return Write::Ended;
        }
        if self.queued >= QUEUE_BYTES {
            self.was_full = true;
            return Write::Full;
        }
        if !chunk.is_empty() {
            self.queued += chunk.len();
            self.queue.push_back(chunk.clone());
        }
        Write::Taken
    }

    pub(super) fn finish(&mut self) -> bool {
        let open = self.state == State::Open;
        if open {
            self.state = State::Finishing;
        }
        open || self.stopped.is_some() // whoever stopped it needs no end
    }

    /// Whether the peer must be told.
    pub(super) fn reset(&mut self, code: u32) -> bool {
        let may = matches!(self.state, State::Open | State::Finishing);
        if may {
            self.state = State::Reset { sent: false, code };
            self.queue.clear();
            self.queued = 0;
        }
        may
    }

    pub(super) fn stopped(&self) -> Stopped {
        match (self.stopped, self.state) {
            (Some(code), _) => Stopped::Yes(code),
            (None, State::Reset { .. }) => Stopped::Ended,
            (None, _) if self.received => Stopped::Received,
            (None, _) => Stopped::No,
        }
    }

    /// The peer wants no more. Whether it must be told that nothing more comes.
    pub(super) fn handle_stop(&mut self, code: u32) -> bool {
        if !matches!(self.state, State::Finished | State::Reset { .. }) {
            self.stopped.get_or_insert(code);
        }
        self.reset(code)
    }

    pub(super) fn handle_credit(&mut self, bytes: u32) {
        self.credit = (self.credit + u64::from(bytes)).min(u32::MAX.into());
    }

    pub(super) fn handle_received(&mut self) -> Result<(), MuxError> {
        if self.state != State::Finished {
            return Err(MuxError::Unasked);
        }
        self.received = true;
        Ok(())
    }

    /// Whether it gets a turn now: it may send something, and has none yet.
    pub(super) fn begin_turn(&mut self) -> bool {
        let may = self.is_only_end() || !self.queue.is_empty() && self.credit > 0;
        let begins = may && !self.has_turn;
        self.has_turn |= may;
        begins
    }

    pub(super) fn end_turn(&mut self) {
        self.has_turn = false;
    }

    /// Whether there is nothing to send but that there is nothing more.
    pub(super) fn is_only_end(&self) -> bool {
        self.state == State::Finishing && self.queue.is_empty()
    }

    /// Writes a frame of at most `most` bytes of data; how many they were. It may have been given up
    /// since it got its turn: then nothing.
    pub(super) fn write_frame(&mut self, number: u32, most: usize, out: &mut Vec<u8>) -> usize {
        let most = usize::try_from(self.credit).unwrap_or(usize::MAX).min(most);
        let length = self.queued.min(most);
        let last = self.state == State::Finishing && length == self.queued;
        if length == 0 && !last {
            return 0;
        }
        let kind = if last { Kind::Last } else { Kind::Data };
        Header { kind, stream: number, value: u32::try_from(length).unwrap_or(0) }.write(out);
        let mut left = length;
        while left > 0
            && let Some(chunk) = self.queue.front_mut()
        {
            let now = chunk.len().min(left);
            out.extend_from_slice(&chunk[..now]);
            chunk.advance(now);
            left -= now;
            if chunk.is_empty() {
                self.queue.pop_front();
            }
        }
        self.queued -= length;
        self.credit -= length as u64;
        if last {
            self.state = State::Finished;
        }
        length
    }

    /// Whether somebody who was told that there is no room can write now; once.
    pub(super) fn has_room(&mut self) -> bool {
        let room = self.queued < QUEUE_BYTES;
        room && std::mem::take(&mut self.was_full)
    }

    pub(super) fn take_opening(&mut self) -> bool {
        std::mem::take(&mut self.opening)
    }

    pub(super) fn take_reset(&mut self) -> Option<u32> {
        match &mut self.state {
            State::Reset { sent, code } if !*sent => {
                *sent = true;
                Some(*code)
            }
            _ => None,
        }
    }

    /// Ended for both, and nobody writes, or waits to hear that it arrived.
    pub(super) fn is_over(&self) -> bool {
        let ended = matches!(self.state, State::Finished | State::Reset { sent: true, .. });
        ended && !self.is_held
    }
}
