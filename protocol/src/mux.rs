//! Many streams on one reliable connection: what QUIC gives, where only TLS over TCP gets through.
//!
//! A pure state machine: bytes that arrived go into [`Mux::handle_input`], bytes that should leave come
//! out of [`Mux::write_output`], and [`Mux::poll_event`] says whom that concerns. Both ends have one; the
//! agent's opens streams, the cloud's accepts them.
//!
//! Written here and not taken from a library: yamux, the one with a well-kept Rust crate, has neither
//! priorities nor codes with a reset nor a word that ends only one direction, and HTTP/2 took its
//! priorities back. All three are needed, so that answers go before blobs, cancels reach the queue, and a
//! refusal is read before everything was sent.
//!
//! **Bounds**: what a peer may send without being read is credit, per stream and per connection, and so
//! are the streams that it may open. Credit is given when the answer to it leaves, never when it is
//! earned, so a peer that sends and does not read cannot make this end queue anything for it.
//!
//! **Priorities** ([`Priority`]): the most urgent stream that may send goes first, equals take turns, a
//! frame has at most [`DATA_MAX_BYTES`].

mod frame;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

pub use frame::{HEADER_BYTES, MuxError, REASON_MAX_BYTES};
use frame::{Header, Kind, Reader, Step};
pub use receive::Read;
use receive::Receive;
use send::Send;
pub use send::{Stopped, Write};

use crate::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION};

/// Payload of one frame; with its header it fills one TLS record.
pub const DATA_MAX_BYTES: usize = (16 << 10) - HEADER_BYTES;
/// A stream takes another chunk while less than this waits in it.
pub const QUEUE_BYTES: usize = 256 << 10;

/// What goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A model, for later.
    Blob,
    /// What is collected.
    Telemetry,
    /// A question that nobody waits for.
    Check,
    /// What a device should run, and what it runs.
    Control,
    /// What somebody waits for.
    #[default]
    Answer,
}

/// Who opens streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This end: the one that connected.
    Opens,
    /// The other end.
    Accepts,
}

/// A stream of one connection. Numbers grow by one and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

/// Whom something concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// [`Mux::accept`] has a stream.
    Arrived,
    /// [`Mux::open`] may open another.
    MayOpen,
    /// [`Mux::read`] has news.
    Readable(StreamId),
    /// [`Mux::write`] or [`Mux::stopped`] has news.
    Writable(StreamId),
    /// The peer answered a ping.
    Pong,
    /// The peer ended the connection, for this reason.
    Closed {
        /// A number of [`crate::problem::ProblemCode`].
        code: u32,
    },
}

#[derive(Debug)]
struct Stream {
    send: Send,
    receive: Receive,
    /// Whether it waits in `Mux::due`.
    is_due: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    streams: BTreeMap<u32, Stream>,
    /// The number of the next stream.
    next: u32,
    /// Streams below this may be opened: as the peer said, or as was said to it.
    limit: u32,
    arrived: VecDeque<StreamId>,
    /// What the peer takes, on all streams together.
    credit: u64,
    /// What it may still send, on all streams together, and what was read since that was said.
    receive_left: u64,
    receive_owed: u64,
    /// Streams that have something to say besides data.
    due: VecDeque<u32>,
    /// Streams with data that may be sent, by priority.
    ready: BTreeMap<Priority, VecDeque<u32>>,
    reader: Reader,
    /// The stream whose payload is arriving, how much is left of it, and whether it is the last.
    arriving: Option<(u32, u32, bool)>,
    events: VecDeque<Event>,
    ping_due: bool,
    pong_due: bool,
    close_due: Option<(u32, Vec<u8>)>,
    reason: String,
    is_over: bool,
}

impl Mux {
    /// A connection on which nothing was said yet.
    pub fn new(side: Side) -> Self {
        Self {
            side,
            streams: BTreeMap::new(),
            next: 0,
            limit: STREAMS_PER_CONNECTION,
            arrived: VecDeque::new(),
            credit: CONNECTION_WINDOW_BYTES.into(),
            receive_left: CONNECTION_WINDOW_BYTES.into(),
            receive_owed: 0,
            due: VecDeque::new(),
            ready: BTreeMap::new(),
            reader: Reader::default(),
            arriving: None,
            events: VecDeque::new(),
            ping_due: false,
            pong_due: false,
            close_due: None,
            reason: String::new(),
            is_over: false,
        }
    }

    /// Opens a stream; `None` until the peer lets another in.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.side == Side::Accepts || self.next >= self.limit || self.is_over {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.streams.insert(number, Stream::new(true));
        self.mark_due(number);
        Some(StreamId(number))
    }

    /// Whether every number was used: no stream can be opened on this connection any more.
    pub fn is_exhausted(&self) -> bool {
        self.next == u32::MAX
    }

    /// The next stream that the peer opened.
    pub fn accept(&mut self) -> Option<StreamId> {
        self.arrived.pop_front()
    }

    /// How many streams are not over yet.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// How urgent what is written from now on is.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.send.priority = priority; // its turn comes by the old one once more, at most
        }
    }

    /// Takes a chunk to be sent, whole, unless too much waits already.
    pub fn write(&mut self, id: StreamId, chunk: &Bytes) -> Write {
        let Some(stream) = self.streams.get_mut(&id.0) else { return Write::Ended };
        let write = stream.send.write(chunk);
        self.mark_ready(id.0);
        write
    }

    /// Nothing more is written; `false` if the stream was over already.
    pub fn finish(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id.0) else { return false };
        let finished = stream.send.finish();
        self.mark_ready(id.0);
        finished
    }

    /// Gives up sending, with a code for the peer; what waits is thrown away.
    pub fn reset(&mut self, id: StreamId, code: u32) {
        if let Some(stream) = self.streams.get_mut(&id.0)
            && stream.send.reset(code)
        {
            self.mark_due(id.0);
        }
    }

    /// Whether the peer stopped the stream, or has received all of it.
    pub fn stopped(&self, id: StreamId) -> Stopped {
        self.streams.get(&id.0).map_or(Stopped::Ended, |stream| stream.send.stopped())
    }

    /// What arrived, at most `max` bytes of it.
    pub fn read(&mut self, id: StreamId, max: usize) -> Read {
        let Some(stream) = self.streams.get_mut(&id.0) else { return Read::End };
        let read = stream.receive.read(max);
        if let Read::Chunk(chunk) = &read {
            self.owe(id.0, chunk.len());
        }
        read
    }

    /// The code with which the peer gave up sending, as soon as that is known; `Some(None)` if it ended
    /// in order.
    pub fn ended(&self, id: StreamId) -> Option<Option<u32>> {
        self.streams.get(&id.0).map_or(Some(None), |stream| stream.receive.ended())
    }

    /// Nothing more is read: the peer is told, with a code, unless it has ended the stream.
    pub fn stop(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        let (unread, tell) = stream.receive.stop(code);
        self.owe(id.0, unread);
        if tell {
            self.mark_due(id.0);
        }
    }

    /// The writer of the stream is gone. It ends in order, unless it was reset before.
    pub fn release_sender(&mut self, id: StreamId) {
        self.finish(id);
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.send.is_held = false;
        }
        self.forget_if_over(id.0);
    }

    /// The reader of the stream is gone.
    pub fn release_receiver(&mut self, id: StreamId) {
        self.stop(id, 0);
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.receive.is_held = false;
        }
        self.forget_if_over(id.0);
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Ends the connection: nothing is sent after this but the reason.
    pub fn close(&mut self, code: u32, reason: &str) {
        if self.is_over {
            return;
        }
        let cut = reason.len().min(REASON_MAX_BYTES);
        self.close_due = Some((code, reason.as_bytes()[..cut].to_vec()));
        self.is_over = true;
    }

    /// What the peer said when it closed.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes in what arrived, however it was cut.
    ///
    /// # Errors
    /// [`MuxError`]: the peer broke the protocol, and the connection must end.
    pub fn handle_input(&mut self, mut bytes: &[u8]) -> Result<(), MuxError> {
        while !bytes.is_empty() && !self.is_over {
            match self.arriving {
                Some(arriving) => self.take_payload(arriving, &mut bytes)?,
                None => match self.reader.step(&mut bytes)? {
                    Step::More => {}
                    Step::Frame(header) => self.handle(header)?,
                    Step::Closed { code, reason } => {
                        self.reason = reason;
                        self.is_over = true;
                        self.events.push_back(Event::Closed { code });
                    }
                },
            }
        }
        Ok(())
    }

    fn handle(&mut self, header: Header) -> Result<(), MuxError> {
        let Header { kind, stream, value } = header;
        match kind {
            Kind::Open => self.handle_open(stream),
            Kind::Data | Kind::Last => self.handle_data(stream, value, kind == Kind::Last),
            Kind::Reset => self.handle_reset(stream, value),
            Kind::Stop => {
                if let Some(stop) = self.known(stream)?.map(|known| known.send.handle_stop(value)) {
                    self.events.push_back(Event::Writable(StreamId(stream)));
                    if stop {
                        self.mark_due(stream);
                    }
                    self.forget_if_over(stream);
                }
                Ok(())
            }
            Kind::Credit => {
                if let Some(known) = self.known(stream)? {
                    known.send.handle_credit(value);
                    self.mark_ready(stream);
                }
                Ok(())
            }
            Kind::Received => {
                if let Some(known) = self.known(stream)? {
                    known.send.handle_received()?;
                    self.events.push_back(Event::Writable(StreamId(stream)));
                    self.forget_if_over(stream);
                }
                Ok(())
            }
            Kind::AllCredit => {
                self.credit = (self.credit + u64::from(value)).min(u64::from(u32::MAX));
                Ok(())
            }
            Kind::Streams => self.handle_streams(value),
            Kind::Ping => {
                self.pong_due = true;
                Ok(())
            }
            Kind::Pong => {
                self.events.push_back(Event::Pong);
                Ok(())
            }
            Kind::Close => unreachable!("the reader has its reason read first"),
        }
    }

    fn handle_open(&mut self, stream: u32) -> Result<(), MuxError> {
        if self.side == Side::Opens || stream != self.next || stream >= self.limit {
            return Err(MuxError::Stream(stream));
        }
        self.next += 1;
        self.streams.insert(stream, Stream::new(false));
        self.arrived.push_back(StreamId(stream));
        self.events.push_back(Event::Arrived);
        Ok(())
    }

    fn handle_streams(&mut self, limit: u32) -> Result<(), MuxError> {
        if self.side == Side::Accepts || limit < self.limit {
            return Err(MuxError::Limit(limit));
        }
        self.limit = limit;
        self.events.push_back(Event::MayOpen);
        Ok(())
    }

    fn handle_data(&mut self, number: u32, length: u32, last: bool) -> Result<(), MuxError> {
        let known = self.streams.get_mut(&number).ok_or(MuxError::Stream(number))?;
        known.receive.expect(number, length)?;
        let left = self.receive_left.checked_sub(length.into());
        self.receive_left = left.ok_or(MuxError::Credit(number))?;
        self.arriving = Some((number, length, last));
        if length == 0 {
            self.take_payload((number, 0, last), &mut &[][..])?;
        }
        Ok(())
    }

    fn take_payload(
        &mut self,
        (number, left, last): (u32, u32, bool),
        bytes: &mut &[u8],
    ) -> Result<(), MuxError> {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (payload, rest) = bytes.split_at(now);
        *bytes = rest;
        let left = left - u32::try_from(now).unwrap_or(left);
        self.arriving = (left > 0).then_some((number, left, last));
        // It cannot have been forgotten while its payload arrives: it has not ended.
        let known = self.streams.get_mut(&number).ok_or(MuxError::Stream(number))?;
        let unwanted = known.receive.take(payload);
        let ends = last && left == 0;
        if ends {
            known.receive.end();
        }
        self.owe(number, unwanted);
        if now > 0 || ends {
            self.events.push_back(Event::Readable(StreamId(number)));
        }
        if ends {
            self.mark_due(number);
        }
        Ok(())
    }

    fn handle_reset(&mut self, number: u32, code: u32) -> Result<(), MuxError> {
        let known = self.streams.get_mut(&number).ok_or(MuxError::Stream(number))?;
        let unread = known.receive.handle_reset(number, code)?;
        self.owe(number, unread);
        self.events.push_back(Event::Readable(StreamId(number)));
        self.forget_if_over(number);
        Ok(())
    }

    /// A stream that is or was there; `None` for one that is over, whose last words may have crossed.
    fn known(&mut self, number: u32) -> Result<Option<&mut Stream>, MuxError> {
        if number >= self.next {
            return Err(MuxError::Stream(number));
        }
        Ok(self.streams.get_mut(&number))
    }

    /// The peer may send so much more, as soon as it is worth saying.
    fn owe(&mut self, number: u32, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.receive_owed += bytes as u64;
        if let Some(stream) = self.streams.get_mut(&number)
            && stream.receive.owe(bytes)
        {
            self.mark_due(number);
        }
    }

    fn mark_due(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number)
            && !stream.is_due
        {
            stream.is_due = true;
            self.due.push_back(number);
        }
    }

    fn mark_ready(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number)
            && stream.send.begin_turn()
        {
            self.ready.entry(stream.send.priority).or_default().push_back(number);
        }
    }

    /// A stream that both ends have ended, and nobody here holds, makes room for another.
    fn forget_if_over(&mut self, number: u32) {
        let over =
            |stream: &Stream| !stream.is_due && stream.send.is_over() && stream.receive.is_over();
        if self.streams.get(&number).is_some_and(over) {
            self.streams.remove(&number);
        }
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        self.close_due.is_some() || !self.is_over && (self.has_words() || self.has_data())
    }

    fn has_words(&self) -> bool {
        self.ping_due
            || self.pong_due
            || !self.due.is_empty()
            || self.owes_credit()
            || self.owes_streams()
    }

    fn has_data(&self) -> bool {
        let mut ready = self.ready.values().rev().filter_map(VecDeque::front);
        match ready.next() {
            None => false,
            Some(_) if self.credit > 0 => true,
            // Without credit an end without data can still be said.
            Some(first) => self.streams.get(first).is_some_and(|s| s.send.is_only_end()),
        }
    }

    fn owes_credit(&self) -> bool {
        self.receive_owed >= u64::from(CONNECTION_WINDOW_BYTES / 8)
    }

    /// How far the limit of streams can rise.
    fn stream_limit(&self) -> u32 {
        let open = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        self.next.saturating_add(STREAMS_PER_CONNECTION.saturating_sub(open))
    }

    fn owes_streams(&self) -> bool {
        let risen = self.stream_limit().saturating_sub(self.limit);
        let worth = risen >= STREAMS_PER_CONNECTION / 8 || risen > 0 && self.next == self.limit;
        self.side == Side::Accepts && worth
    }

    /// Appends what is to be sent, until `out` has about `target` bytes or there is nothing more.
    pub fn write_output(&mut self, out: &mut Vec<u8>, target: usize) {
        if let Some((code, reason)) = self.close_due.take() {
            let value = u32::try_from(reason.len()).unwrap_or(0);
            Header { kind: Kind::Close, stream: code, value }.write(out);
            out.extend_from_slice(&reason);
        }
        if self.is_over {
            return;
        }
        self.write_words(out);
        while out.len() < target && self.write_data(out) {}
    }

    fn write_words(&mut self, out: &mut Vec<u8>) {
        while let Some(number) = self.due.pop_front() {
            let Some(stream) = self.streams.get_mut(&number) else { continue };
            stream.is_due = false;
            stream.write_words(number, out);
            self.forget_if_over(number);
        }
        let mut say = |kind, value| Header { kind, stream: 0, value }.write(out);
        if std::mem::take(&mut self.ping_due) {
            say(Kind::Ping, 0);
        }
        if std::mem::take(&mut self.pong_due) {
            say(Kind::Pong, 0);
        }
        if self.owes_credit() {
            say(Kind::AllCredit, u32::try_from(self.receive_owed).unwrap_or(u32::MAX));
            self.receive_left += std::mem::take(&mut self.receive_owed);
        }
        if self.owes_streams() {
            self.limit = self.stream_limit();
            say(Kind::Streams, self.limit);
        }
    }

    /// Writes one frame of the most urgent stream; `false` when there is none.
    fn write_data(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.has_data() {
            return false;
        }
        let Some((_, queue)) = self.ready.iter_mut().rev().find(|(_, queue)| !queue.is_empty())
        else {
            return false;
        };
        let Some(number) = queue.pop_front() else { return false };
        let Some(stream) = self.streams.get_mut(&number) else { return true };
        stream.send.end_turn();
        let most = usize::try_from(self.credit).unwrap_or(usize::MAX).min(DATA_MAX_BYTES);
        let sent = stream.send.write_frame(number, most, out);
        self.credit -= sent as u64;
        if stream.send.has_room() {
            self.events.push_back(Event::Writable(StreamId(number)));
        }
        self.mark_ready(number);
        self.forget_if_over(number);
        true
    }
}

impl Stream {
    fn new(opened_here: bool) -> Self {
        let send = Send::new(opened_here, STREAM_WINDOW_BYTES);
        Self { send, receive: Receive::new(STREAM_WINDOW_BYTES), is_due: false }
    }

    /// Everything that it has to say but its data.
    fn write_words(&mut self, number: u32, out: &mut Vec<u8>) {
        let mut say = |kind, value| Header { kind, stream: number, value }.write(out);
        if self.send.take_opening() {
            say(Kind::Open, 0);
        }
        if let Some(code) = self.send.take_reset() {
            say(Kind::Reset, code);
        }
        if let Some(code) = self.receive.take_stop() {
            say(Kind::Stop, code);
        }
        if self.receive.take_received() {
            say(Kind::Received, 0);
        }
        if let Some(bytes) = self.receive.take_credit() {
            say(Kind::Credit, bytes);
        }
    }
}
